"""LangChain's standard tests of a chat model, driven through its own client of OpenAI's API."""

from __future__ import annotations

from typing import Any

import pytest

WANTED = "is not installed: make test-clients"
langchain_openai = pytest.importorskip("langchain_openai", reason=f"langchain-openai {WANTED}")
integration = pytest.importorskip("langchain_tests.integration_tests", reason=f"langchain-tests {WANTED}")


@pytest.mark.asyncio(loop_scope="class")  # the client keeps its connections, and they their loop
class TestChat(integration.ChatModelIntegrationTests):
    """A model of random weights: what it says means nothing, so tools and images are not asked of it here."""

    @pytest.fixture(autouse=True)
    def _server(self, listening: Any) -> None:
        type(self).url = f"{listening.url}/v1"

    url = ""

    @property
    def chat_model_class(self) -> Any:
        return langchain_openai.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "base_url": self.url, "api_key": "none", "max_tokens": 12, "stream_usage": True}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False


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
