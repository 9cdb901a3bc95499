"""A small OpenAI-compatible server around a model folder, over real HTTP.

It answers with the stock `generate`, one request at a time, so that it shares no decoding code
with what is tested. As vLLM does, it lists the end token among the tokens, though not in the
text. Model names other than `toy` ask for a fault.
"""

import base64
import io
import threading
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lad_agent.reasoners.checkpoint import load_checkpoint


class Server:
    """Serves while it is entered; `url` is the base URL, `requests` what was asked."""

    def __init__(self, folder: Path) -> None:
        loaded = load_checkpoint(folder, device="cpu")
        self._model, self._processor = loaded.model, loaded.processor
        self._one_at_a_time = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.authorization = ""
        self.failures_left = 0
        self.most_at_once = self._at_once = 0
        app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _answer(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.requests.append(body)
        self.authorization = request.headers["authorization"]
        if self.failures_left:
            self.failures_left -= 1
            return _error(503, "overloaded")
        match body["model"]:
            case "unknown":
                return _error(404, "no such model")
            case "secret":
                return _error(401, "wrong key")
            case "picky":
                return _error(400, "top_k is not supported")
            case "slow":
                await run_in_threadpool(time.sleep, 1.0)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            choices = await run_in_threadpool(self._choices, body)
        finally:
            self._at_once -= 1
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
             "choices": choices}
        )  # fmt: skip

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        with self._one_at_a_time:
            return self._generate(body)

    @torch.inference_mode()
    def _generate(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        assert body["repetition_penalty"] == 1.0
        pictures: list[Image.Image] = []
        messages = [{**m, "content": [_part(p, pictures) for p in m["content"]]}
                    for m in body["messages"]]  # fmt: skip
        text = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(text=[text], images=[pictures], return_tensors="pt")
        sampled = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        torch.manual_seed(body["seed"])
        out = self._model.generate(
            **inputs,
            max_new_tokens=body["max_tokens"],
            num_return_sequences=body["n"],
            repetition_penalty=1.0,
            return_dict_in_generate=True,
            output_logits=True,
            **(sampled if body["temperature"] else {"do_sample": False}),
        )
        begin = inputs["input_ids"].shape[1]
        logprobs = torch.stack(out.logits, 1).log_softmax(-1)
        return [self._choice(body, n, out.sequences[n, begin:].tolist(), logprobs[n])
                for n in range(body["n"])]  # fmt: skip

    def _choice(
        self, body: dict[str, Any], n: int, ids: list[int], logprobs: torch.Tensor
    ) -> dict[str, Any]:
        tokenizer = self._processor.tokenizer
        ended = tokenizer.eos_token_id in ids
        ids = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
        content = [self._entry(token, logprobs[step], body["top_logprobs"])
                   for step, token in enumerate(ids)]  # fmt: skip
        message = {"role": "assistant", "content": tokenizer.decode(ids[:-1] if ended else ids)}
        if body["model"] == "parsing":
            message["reasoning_content"] = "as the parser saw it"
        return {
            "index": n,
            "message": message,
            "finish_reason": "stop" if ended else "length",
            "logprobs": None if body["model"] == "mute" else {"content": content},
        }

    def _entry(self, token: int, logprobs: torch.Tensor, top: int) -> dict[str, Any]:
        best = logprobs.topk(top)
        return {
            **self._spelled(token, float(logprobs[token])),
            "top_logprobs": [self._spelled(int(i), float(p))
                             for i, p in zip(best.indices, best.values, strict=True)],
        }  # fmt: skip

    def _spelled(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._processor.tokenizer.decode([token])
        return {"token": text, "bytes": list(text.encode()), "logprob": logprob}


def _part(part: dict[str, Any], pictures: list[Image.Image]) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    head, data = part["image_url"]["url"].split(",", 1)
    assert head == "data:image/png;base64"
    pictures.append(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    return {"type": "image"}


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status_code=status)
