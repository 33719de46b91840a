#!/usr/bin/env python3
"""The prompt lists of the calibration and divergence sets, drawn from the training recipe's grammars with seeds of their
own: prompts-ja.jsonl (Japanese-strong, little mathematics), prompts-arith.jsonl (mathematics-heavy) and
prompts-eval.jsonl (the training mix in equal languages, never used to calibrate). `assay calibrate` answers them.

    python3 golden/micro-glm/calibration/make_prompts.py FOLDER [--eval N]
"""
import argparse
import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "recipe"))
import gen  # noqa: E402

LISTS = {  # seed, prompts, language weights, family weights, share with thinking
    "ja": (101, 1440, {"ja": 60, "en": 20, "zh": 20},
           {"open": 31, "fact": 20, "lists": 14, "multi": 10, "needle": 11, "arithmetic": 14}, 0.8),
    "arith": (102, 1440, {"ja": 34, "en": 33, "zh": 33}, {"arithmetic": 88, "lists": 4, "fact": 4, "open": 4}, 0.8),
    "eval": (103, 180, {"ja": 1, "en": 1, "zh": 1},
             {"arithmetic": 40, "fact": 18, "open": 18, "lists": 10, "multi": 7, "needle": 7}, 0.8),
}
MOST_EVAL = 1000  # no calibration question is among the first so many prompts for judging


def draw(rng, weights):
    return rng.choices(list(weights), list(weights.values()))[0]


def turns_of(rng, family, lq, lr, la, think, pool):
    if family == "needle":
        text, qa = gen.needle_dialog(rng, lq, lr, la, think, rng.choice((100, 300, 600)), pool, 1)
        return [(text, qa[0][1], qa[0][2])] + qa[1:]
    if family == "multi":
        return gen.multi_turn(rng, lq, lr, la, think)
    return [gen.FAMILY[family](rng, lq, lr, la, think)]


def messages_of(turns, system):
    out = [{"role": "system", "content": system}] if system else []
    for i, (question, _, answer) in enumerate(turns):
        out.append({"role": "user", "content": question})
        if i + 1 < len(turns):
            out.append({"role": "assistant", "content": answer})
    return out


def prompts(name, n):
    seed, _, languages, families, thinking = LISTS[name]
    rng = random.Random(seed)
    pool = gen.SentencePool(rng)
    for i in range(n):
        lang, family = draw(rng, languages), draw(rng, families)
        lq, lr, la, system, _ = gen.setting(rng, lang)
        think = rng.random() < thinking
        turns = turns_of(rng, family, lq, lr, la, think, pool)
        line = {"id": f"{name}-{i:03}", "lang": lang, "kind": family, "messages": messages_of(turns, system)}
        if not think:
            line["thinking"] = False
        yield line


def dumped(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def questions(line):
    """What the user says: two prompts with it are the same, whatever system prompt stands before it."""
    return tuple(m["content"] for m in line["messages"] if m["role"] == "user")


def make(name, folder, n, avoid):
    lines = [dumped(line) for line in prompts(name, n) if questions(line) not in avoid]
    (folder / f"prompts-{name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--eval", type=int, default=LISTS["eval"][1], help="prompts for judging; the first are the same")
    args = parser.parse_args()
    judging = {questions(line) for line in prompts("eval", max(args.eval, MOST_EVAL))}
    for list_name, (_, n_prompts, *_) in LISTS.items():
        is_eval = list_name == "eval"
        make(list_name, args.folder, args.eval if is_eval else n_prompts, set() if is_eval else judging)
