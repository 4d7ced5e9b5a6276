"""What a run leaves to others: the model folder, with a card that says what was measured and where it came from."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from chatsmith import machine
from chatsmith.models.decoder import Decoder
from chatsmith.settings import to_mapping
from chatsmith.store.card import Measured, model_card
from chatsmith.store.folder import save_model
from chatsmith.train.callbacks import Compared, Outcome
from chatsmith.train.data import Corpus
from chatsmith.train.metrics import finite


def write_model_folder(
    model: Decoder, corpus: Corpus, outcome: Outcome, *, finished: bool, compared: Compared | None
) -> None:
    """Write `model` into the outcome's folder, in float32; `finished` runs went to the end of their schedule."""
    figures = {
        field.name: getattr(outcome, field.name)
        for field in dataclasses.fields(outcome)
        if field.name not in ("folder", "recipe", "stopped")
    }
    run = {**figures, "loss": finite(outcome.loss)}
    if compared is not None:
        run["compared"] = dataclasses.asdict(compared)
    run |= {"finished": finished, "machine": _machine(), "hours": round(outcome.seconds / 3600, 4)}
    save_model(
        outcome.folder,
        model,
        corpus.tokenizer,
        provenance={"recipe": to_mapping(outcome.recipe), "run": run},
        card=model_card(outcome.folder.resolve().name, model.spec, _measured(corpus, outcome, compared)),
        generation=_published(outcome.recipe.samples.temperature),
        overwrite=True,
    )


def _measured(corpus: Corpus, outcome: Outcome, compared: Compared | None) -> Measured:
    """What the card says; its bits per byte are of the text that compressors were given, where they were."""
    manifests = [folder.manifest for folder in corpus.folders]
    return Measured(
        steps=outcome.steps,
        tokens=outcome.tokens,
        minutes=outcome.seconds / 60,
        tokens_per_second=outcome.tokens / outcome.seconds if outcome.seconds else None,
        machine=_machine(),
        seed=outcome.recipe.seed,
        version=outcome.recipe.record.versions.get("chatsmith"),
        documents=sum(manifest.documents for manifest in manifests),
        data_tokens=sum(manifest.tokens for manifest in manifests),
        data_bytes=sum(manifest.bytes for manifest in manifests),
        data_fingerprint=", ".join(manifest.fingerprint[:16] for manifest in manifests),
        sources=tuple(source.path for source in outcome.recipe.data.sources),
        train_loss=finite(outcome.loss),
        held_out_loss=outcome.held_out_loss,
        held_out_bits_per_byte=compared.bits_per_byte if compared else outcome.bits_per_byte,
        first_alone=compared is not None and len(outcome.recipe.data.sources) > 1,
        gzip_bits_per_byte=compared.gzip_bits_per_byte if compared else None,
        xz_bits_per_byte=compared.xz_bits_per_byte if compared else None,
        chat=any(folder.split("train").has_loss for folder in corpus.folders),
        started_from=outcome.recipe.starts_from,
    )


def _published(temperature: float) -> dict[str, Any]:
    """How the finished model is to be talked with, as generation_config.json says it."""
    return {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}


@cache
def _machine() -> str:
    found = machine.describe()
    return f"{found.cpu}, {found.cores} cores"
