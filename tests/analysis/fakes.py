"""Records made by hand: a few workers, a server, steps of known parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.record import CURVE_COLUMNS, GRADIENT_COLUMNS, KINDS, NODE_COLUMNS, PARTS, SPAN_COLUMNS, Record

INTEGERS = {
    "node", "steps", "samples", "messages_out", "messages_in", "bytes_out", "bytes_in", "blends", "applied",
    "pending", "lost", "step", "server", "source", "count", "kind",
}  # fmt: skip


def table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """``rows`` as a columnar table; what a row lacks is 0."""
    out = {}
    for name in columns:
        values = [row.get(name, "" if name == "role" else 0) for row in rows]
        if name == "role":
            out[name] = np.array(values, dtype="U6")
        else:
            out[name] = np.array(values, dtype=np.int64 if name in INTEGERS else np.float64)
    return out


def make(
    parts: list[dict[str, float]],
    *,
    steps: int = 6,
    batch: int = 10,
    warmup: int = 2,
    servers: int = 1,
    spans: bool = False,
    curves: bool = False,
    **manifest: Any,
) -> Record:
    """A record in which worker i repeats ``parts[i]`` (seconds by part of one step) ``steps`` times."""
    node_rows, step_rows, span_rows = [], [], []
    for rank, share in enumerate(parts):
        length = sum(share.values())
        for k in range(steps):
            begin = k * length
            step_rows.append({"node": rank, "step": k, "start": begin, "end": begin + length, **share})
            for part, seconds in share.items():
                span_rows.append(
                    {"node": rank, "kind": KINDS.index(part), "start": begin, "end": begin + seconds}
                )
                begin += seconds
    end = max((row["end"] for row in step_rows), default=0.0)
    for rank, share in enumerate(parts):
        own = steps * sum(share.values())
        totals = {part: steps * seconds for part, seconds in share.items()}
        node_rows.append({
            "node": rank, "role": "worker", "steps": steps, "samples": steps * batch, "end": own,
            "idle": end - own, "bytes_out": 100 * steps, "bytes_in": 50 * steps, **totals,
        })  # fmt: skip
    for index in range(servers):
        node_rows.append({
            "node": len(parts) + index, "role": "server", "end": end, "receive": end / 2, "idle": end / 2,
            "bytes_in": 100 * steps * len(parts), "bytes_out": 50 * steps * len(parts),
        })  # fmt: skip
        span_rows.append(
            {"node": len(parts) + index, "kind": KINDS.index("receive"), "start": 0.0, "end": end / 2}
        )
    names = {"algorithm": "asp", "scenario": "fake"} | {
        key: manifest.pop(key) for key in ("algorithm", "scenario") if key in manifest
    }
    cluster = {"workers": len(parts), "compute": {"mean": 0.1}, **manifest.pop("cluster", {})}
    gradients = [
        {"server": len(parts), "time": 1.0, "source": 0, "count": 9, "staleness": 1.0},
        {"server": len(parts), "time": 2.0, "source": 1, "count": 1, "staleness": 11.0},
    ]
    curve = [{"time": t, "step": t, "epoch": t / 2, "samples": 10 * t, "loss": 2.0 / (1 + t),
              "accuracy": 1 - 0.8 / (1 + t), "consensus": float("nan")} for t in range(5)]  # fmt: skip
    return Record(
        manifest={
            "scenario": {
                "name": names["scenario"],
                "algorithm": {"name": names["algorithm"]},
                "cluster": cluster,
                "workload": {"model": "mlp", "batch": batch, **manifest.pop("workload", {})},
                "run": {"warmup_steps": warmup, **manifest.pop("run", {})},
            },
            "driver": "sim",
            **manifest,
        },
        nodes=table(NODE_COLUMNS, node_rows),
        steps=table(("node", "step", "start", "end", *PARTS[:-1], "blends"), step_rows),
        gradients=table(GRADIENT_COLUMNS, gradients if servers else []),
        spans=table(SPAN_COLUMNS, span_rows if spans else []),
        curves=table(CURVE_COLUMNS, curve if curves else []),
    )


STEP = {"compute": 0.1, "update": 0.01, "send": 0.02, "wait": 0.06, "receive": 0.01}
