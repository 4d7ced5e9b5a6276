"""LangChain's standard tests of a chat model, driven through its own client of OpenAI's API.

Skipped there: tools, of which this model's chat template knows nothing (tests/serve/test_tools.py asks them of one that
does); JSON without a schema, whose fields random weights cannot guess; pictures, sound and PDFs, which no model here
reads; Anthropic's own blocks; another model by name, of which there is none; and recordings of the network.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httpx
import pytest

WANTED = "is not installed: make test-clients"
langchain_openai = pytest.importorskip("langchain_openai", reason=f"langchain-openai {WANTED}")
integration = pytest.importorskip("langchain_tests.integration_tests", reason=f"langchain-tests {WANTED}")


@pytest.fixture(scope="module")
def ends(listening: Any) -> dict[str, int]:
    """A bias to the tokens that end texts and objects of JSON."""

    def token(letter: str) -> str:
        [found] = httpx.post(f"{listening.url}/v1/tokenize", json={"text": letter}).json()["ids"]
        return str(found)

    return {token('"'): 100, token("}"): 50}


NO_END = {str(token): -100 for token in range(5)}  # the special tokens: random weights may draw one as the first word


@pytest.mark.asyncio(loop_scope="class")  # the client keeps its connections, and they their loop
class TestChat(integration.ChatModelIntegrationTests):
    """A model of random weights: what it says means nothing. In JSON it would never end a text; it is led to."""

    @pytest.fixture(autouse=True)
    def _server(self, listening: Any, ends: dict[str, int]) -> None:
        type(self).url, type(self).ends = f"{listening.url}/v1", ends

    url = ""
    ends: ClassVar[dict[str, int]] = {}

    @property
    def chat_model_class(self) -> Any:
        return langchain_openai.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        server = {"model": "tiny", "base_url": self.url, "api_key": "none"}
        return server | {"max_tokens": 12, "seed": 1, "logit_bias": NO_END, "stream_usage": True}

    @pytest.fixture
    def model(self, request: Any) -> Any:
        """The standard tests' model; where JSON is asked for, one that ends what it says."""
        asked = request.node.name.split("[")[0]
        more = {"max_tokens": 60, "logit_bias": self.ends} if "structured" in asked or "json" in asked else {}
        return self.chat_model_class(**self.chat_model_params | more)

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @pytest.mark.xfail(reason="it asks for tools, whatever the method")
    def test_structured_output_pydantic_2_v1(self, model: Any) -> None:
        """See the parent."""
        super().test_structured_output_pydantic_2_v1(model)


@pytest.mark.asyncio(loop_scope="class")  # the client keeps its connections, and they their loop
class TestEmbeddings(integration.EmbeddingsIntegrationTests):
    """Vectors, by text: LangChain would send ids of OpenAI's vocabulary."""

    url = ""

    @pytest.fixture(autouse=True)
    def _server(self, listening: Any) -> None:
        type(self).url = f"{listening.url}/v1"

    @property
    def embeddings_class(self) -> Any:
        return langchain_openai.OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": self.url, "api_key": "none", "check_embedding_ctx_length": False}
