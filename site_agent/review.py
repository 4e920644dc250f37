"""A held reply in words and numbers: exactly what would leave."""

from __future__ import annotations

import base64
import json

from fedcac.canonical import sha256_hex
from fedcac.exchange import Answer, Reply

__all__ = ["describe_reply"]


def describe_reply(envelope: bytes) -> str:
    """Return a held reply as text: every number of every release, and the digest of the bytes."""
    reply = Reply.model_validate_json(base64.b64decode(json.loads(envelope)["payload"]))
    lines = [
        f"Round {reply.round_id}, exchange {reply.exchange}: {len(envelope)} bytes, "
        f"{sha256_hex(envelope)}",
        f"Policy: {reply.policy.profile}, cells under {reply.policy.minimum_cell} are suppressed",
    ]
    for name, answer in (*sorted(reply.answers.items()), ("flow", reply.flow)):
        lines.append(f"  {name}: {_describe_answer(answer)}")
    return "\n".join(lines)


def _describe_answer(answer: Answer) -> str:
    if answer.release is None:
        return f"refused ({answer.refusal})"
    fields = "; ".join(f"{field} = {value}" for field, value in sorted(answer.release.items()))
    return f"releases {fields}"
