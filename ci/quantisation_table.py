#!/usr/bin/env python3
"""Quantises the bundled model in every way that docs/quantisation.md compares, judges each build, and prints the table.

    ci/quantisation_table.py --out out/quantisation [--arms ja-1.71,scalar] [--seeds 0,1,2] [--jobs 1] [--threads 0]
    ci/quantisation_table.py --out out/quantisation --jobs 16      every arm, 16 at a time, the cores shared among them
    ci/quantisation_table.py --out out/quantisation --whats-new    the card's "What's new", before and now

What is finished in --out is kept, so an interrupted call goes on. Needs a release build (ci/build release).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "golden/micro-glm/model"
CALIBRATION = ROOT / "golden/micro-glm/calibration"
SCALAR_BITS = "1.85"  # the file is then as large as that of 1.71 bits with codebooks and its 12-bit codes in whole words
ARMS = {  # name: what it is, arguments of assay quantize
    "ja-1.71": ("this release", []),
    "arith-1.86": ("its predecessor: mathematics-heavy calibration, down_proj without feedback", ["--recipe", "arith-1.86"]),
    "naive": ("nearest codewords, no feedback", ["--naive"]),
    "naive-down": ("down_proj without feedback", ["--naive-down"]),
    "mixture-2": ("a mixture of 2.00 bits", ["--bits", "2"]),
    "uniform-2": ("one tier of 2 bits", ["--uniform", "2"]),
    "arith-set": ("the mathematics-heavy calibration set at 1.71", ["--calibration", str(CALIBRATION / "arith.jsonl.gz")]),
    "scalar": ("scalar, same Hessians, feedback and knapsack, equal total bytes", ["--scalar", "--bits", SCALAR_BITS]),
    "scalar-1.71": ("the scalar arm at the code bits of this release, whose codebooks a large model does not notice", ["--scalar"]),
    "power-0.5": ("codebooks fitted to sub-vectors that count less unequally", ["--set", "codebook_power=0.5"]),
    "power-0": ("codebooks fitted to sub-vectors that count the same", ["--set", "codebook_power=0"]),
    "descents-6": ("six passes of coordinate descent", ["--set", "n_descents=6"]),
    "power-0-descents-6": ("both", ["--set", "codebook_power=0", "--set", "n_descents=6"]),
    "kept": ("tiers by what feedback leaves of each projection's predicted error", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6"]),
    "kept-power-0-descents-6": ("that, with the two above", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6", "--set", "codebook_power=0", "--set", "n_descents=6"]),
    "kept-bf16-spine": ("that alone, everything but the experts in bf16", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6", "--spine-bits", "16"]),
    "beam-2": ("the two best codings of a row go on in the sweep", ["--set", "beam=2"]),
    "beam-4": ("the four best", ["--set", "beam=4"]),
    "beam-8": ("the eight best", ["--set", "beam=8"]),
    "beam-4-no-descents": ("the four best, no coordinate descent after the sweeps", ["--set", "beam=4", "--set", "n_descents=0"]),
    "act-order": ("sub-vectors swept by what goes through them, most first", ["--set", "activation_order=1"]),
    "kept-act-order": ("kept, in that order", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6", "--set", "activation_order=1"]),
    "scalar-act-order": ("the scalar arm in that order, the spine's columns too", ["--scalar", "--bits", SCALAR_BITS, "--set", "activation_order=1", "--set", "spine_activation_order=1"]),
    "kept-measured": ("tiers by what encoding leaves of predicted errors, measured on two experts a layer", ["--set", "kept_sample=2"]),
    "kept-measured-beam-4": ("that, with a beam of four", ["--set", "kept_sample=2", "--set", "beam=4"]),
    "kept-measured-bf16-spine": ("kept-measured, everything but the experts in bf16", ["--set", "kept_sample=2", "--spine-bits", "16"]),
    "scalar-kept": ("the scalar arm with what its own builds kept of predicted errors", ["--scalar", "--bits", SCALAR_BITS, "--set", "kept_gate=0.13", "--set", "kept_up=0.20", "--set", "kept_down=0.37"]),
    "scalar-kept-bf16-spine": ("that, everything but the experts in bf16", ["--scalar", "--bits", SCALAR_BITS, "--set", "kept_gate=0.13", "--set", "kept_up=0.20", "--set", "kept_down=0.37", "--spine-bits", "16"]),
    "kept-spine-8": ("kept, the whole spine in 8 bits", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6", "--spine-bits", "8"]),
    "scalar-spine-8": ("the scalar arm likewise", ["--scalar", "--bits", SCALAR_BITS, "--spine-bits", "8"]),
    "kept-damping-0.05": ("kept, with five times the damping", ["--set", "kept_gate=0.13", "--set", "kept_up=0.18", "--set", "kept_down=0.6", "--set", "damping=0.05"]),
    "scalar-kept-measured": ("the scalar arm with what is measured of its own", ["--scalar", "--bits", SCALAR_BITS, "--set", "kept_sample=2"]),
    "scalar-kept-measured-bf16-spine": ("that, everything but the experts in bf16", ["--scalar", "--bits", SCALAR_BITS, "--set", "kept_sample=2", "--spine-bits", "16"]),
    "scalar-naive": ("the scalar arm without feedback", ["--scalar", "--bits", SCALAR_BITS, "--naive"]),
    "damping-0.05": ("five times the damping", ["--set", "damping=0.05"]),
    "group-64": ("a scale to 64 columns", ["--set", "group=64"]),
    "short-codes": ("tiers of 8-bit codes alone, equal total bytes", ["--tiers", "1", "--tiers", "2", "--bits", "1.845"]),
    "no-focus": ("every calibration token weighs the same", ["--set", "focus=0"]),
    "scalar-no-focus": ("the scalar arm likewise", ["--scalar", "--bits", SCALAR_BITS, "--set", "focus=0"]),
    "two-rounds": ("codebooks refitted by least squares, then encoded again", ["--set", "n_rounds=2"]),
    "no-descents": ("no coordinate descent after the sweeps", ["--set", "n_descents=0"]),
    "by-error": ("tiers by errors alone (temper=0)", ["--set", "temper=0"]),
    "bf16-spine": ("this release's experts, everything else in bf16", ["--spine-bits", "16"]),
    "scalar-bf16-spine": ("the scalar experts likewise", ["--scalar", "--bits", SCALAR_BITS, "--spine-bits", "16"]),
    "one-bit": ("every expert in 1 bit", ["--uniform", "1"]),
    "one-bit-naive": ("the same without feedback", ["--uniform", "1", "--naive"]),
}


def call(command, log):
    with open(log, "w") as out:
        code = subprocess.run([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT).returncode
    if code not in (0, 1):  # 1: a verdict of regression, which is a result
        sys.exit(f"{' '.join(map(str, command))} ended with {code}; see {log}")


def judge(args, model, out, threads):
    """Divergence from bf16, and the arithmetic suite beside bf16's run."""
    if not (out / "diverge.json").exists():
        call([args.assay, "diverge", MODEL, model, "--texts", args.out / "texts.jsonl", "--noise-texts", 0,
              *threads, "--out", out / "diverge.json"], out / "diverge.log")
    if not (out / "run" / "run.json").exists():
        call([args.assay, "run", "arithmetic", "--profile", "full", "--model", model, "--out", out / "run",
              "--baseline", args.out / "bf16", *(["--threads", threads[1]] if threads else [])], out / "run.log")


def threads_of_each(args):
    """Builds at a time share the cores; 0: one build, and assay takes them all."""
    if args.threads or args.jobs == 1:
        return args.threads
    return max(1, len(os.sched_getaffinity(0)) // args.jobs)


def build(args, arm, seed):
    out = args.out / f"{arm}-seed{seed}"
    out.mkdir(exist_ok=True)
    threads = ["--threads", str(threads_of_each(args))] if threads_of_each(args) else []
    if not (out / "model" / "config.json").exists():  # written last
        call([args.assay, "quantize", MODEL, out / "model", *ARMS[arm][1], "--seed", seed, *threads], out / "quantize.log")
    judge(args, out / "model", out, threads)
    files = [f for f in (out / "model").iterdir() if f.suffix == ".safetensors"]
    (out / "size.json").write_text(json.dumps(sum(f.stat().st_size for f in files)))
    print(f"{arm} seed {seed} done", file=sys.stderr, flush=True)


WHATS_NEW = [  # what the release's card says is new: the arm without it, the arm with it
    ("the release: 1.71 bits for 1.86", "arith-1.86", "ja-1.71"),
    ("calibration: Japanese-strong, traces that close, little mathematics", "arith-set", "ja-1.71"),
    ("down_proj compensated like gate and up", "naive-down", "ja-1.71"),
    ("VQ with compensation, not VQ alone", "naive", "ja-1.71"),
    ("VQ with compensation, not compensation alone (scalar, equal size)", "scalar", "ja-1.71"),
    ("experts of 1 bit: compensated", "one-bit-naive", "one-bit"),
]
NOISE_TEXTS = 48  # the noise floor's second arithmetic is scalar, and slow


def prepare(args):
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "texts.jsonl").exists():
        subprocess.run([sys.executable, str(CALIBRATION / "make_prompts.py"), str(args.out), "--eval", str(args.texts)], check=True)
        call([args.assay, "calibrate", "--model", MODEL, "--prompts", args.out / "prompts-eval.jsonl", "--out", args.out / "texts.jsonl"], args.out / "texts.log")
    if not (args.out / "noise.json").exists():
        call([args.assay, "diverge", MODEL, MODEL, "--texts", args.out / "texts.jsonl", "--limit", NOISE_TEXTS,
              "--noise-texts", NOISE_TEXTS, "--out", args.out / "noise.json"], args.out / "noise.log")
    if not (args.out / "bf16" / "run.json").exists():
        call([args.assay, "run", "arithmetic", "--profile", "full", "--model", MODEL, "--out", args.out / "bf16"], args.out / "bf16.log")


def group(diverge, lang):
    return next(g for g in diverge["groups"] if g["lang"] == lang and g["part"] == "all")


def mean_sd(values, digits=2):
    scaled = [1e3 * v for v in values]
    spread = f" ± {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{statistics.mean(scaled):.{digits}f}{spread}"


def folders_of(args, arm, finished="diverge.json"):
    return [f for f in sorted(args.out.glob(f"{arm}-seed?")) if (f / finished).exists()]


def aim(args, what, arm, other, lang, most):
    """Mean KLD of one arm over another's, over all seeds, and the least and greatest of one seed."""
    def klds(name):
        return {f.name[-1]: group(json.loads((f / "diverge.json").read_text()), lang)["kld"]["mean"]["value"] for f in folders_of(args, name)}
    ours, theirs = klds(arm), klds(other)
    each = [ours[s] / theirs[s] for s in ours if s in theirs]
    if each:
        ratio = statistics.mean(ours.values()) / statistics.mean(theirs.values())
        print(f"| {what} | {ratio:.2f} | {min(each):.2f} … {max(each):.2f} | ≤ {most} |")


def row_of(run, metric):
    return next(r for r in run["comparison"]["rows"] if r["arm"] == "thinking" and r["language"] == "" and r["metric"] == metric)


def total_of(run):
    return next(g for g in run["metrics"] if g["arm"] == "thinking" and not g["language"] and not g["kind"] and g["gated"])


def accuracy_text(runs):
    """Mean over seeds, with the widest of their clustered 95 % intervals (Wilson's), as assay run states them."""
    each = [total_of(r)["accuracy"] for r in runs]
    mean, lowest, highest = statistics.mean(a["estimate"] for a in each), min(a["lo"] for a in each), max(a["hi"] for a in each)
    return f"{100 * mean:.1f} % [{100 * lowest:.1f}, {100 * highest:.1f}]"


def noise_row(args):
    """bf16 against itself in another arithmetic: what is below this is no news."""
    if not (args.out / "noise.json").exists():  # of a call before there was one
        return
    floor = json.loads((args.out / "noise.json").read_text())["noise_floor"]
    klds = [f"{1e3 * group(floor, lang)['kld']['mean']['value']:.2g}" for lang in ("all", "ja", "en", "zh")]
    print(f"| bf16 itself, {' against '.join(floor['between'])}, {floor['n_texts']} chats | | | | | " + " | ".join(klds) +
          f" | {1e3 * floor['kld']['p99']['value']:.2g} | {100 * floor['top1_agreement']['value']:.2f} % | | | |")


def whats_new(args):
    """The card's rows on this model: mean over seeds, without and with what is new."""
    def figures(arm):
        folders = folders_of(args, arm, "size.json")
        diverges = [json.loads((f / "diverge.json").read_text()) for f in folders]
        runs = [json.loads((f / "run" / "run.json").read_text()) for f in folders]
        mib = statistics.mean(json.loads((f / "size.json").read_text()) for f in folders) / 2**20
        klds = [1e3 * statistics.mean(group(d, lang)["kld"]["mean"]["value"] for d in diverges) for lang in ("all", "ja")]
        accuracy = statistics.mean(row_of(r, "accuracy")["n_candidate"] / row_of(r, "accuracy")["n"] for r in runs)
        closed = statistics.mean(row_of(r, "closed")["n_candidate"] / row_of(r, "closed")["n"] for r in runs)
        return [f"{mib:.2f}", *(f"{k:.2f}" for k in klds), f"{100 * accuracy:.1f} %", f"{100 * closed:.2f} %"]
    print('\n| what is new | arms | MiB | KLD · 10³ | ja | arithmetic | thinking closes |\n' + "|---" * 7 + "|")
    for what, before, now in WHATS_NEW:
        if folders_of(args, before, "size.json") and folders_of(args, now, "size.json"):
            pairs = " | ".join(f"{a} → {b}" for a, b in zip(figures(before), figures(now)))
            print(f"| {what} | {before} → {now} | {pairs} |")


def table(args):
    print("| build | seeds | code bits | total bits | MiB | KLD ·10³ | ja | en | zh | 99 % ·10³ | same top-1 | "
          "arithmetic, thinking | difference to bf16, points | thinking closes |")
    print("|" + "---|" * 14)
    base = json.loads((args.out / "bf16" / "run.json").read_text())
    c = total_of(base)["closed"]
    print(f"| bf16 | | 16 | 16 | {(MODEL / 'model.safetensors').stat().st_size / 2**20:.1f} | 0 | 0 | 0 | 0 | 0 | 100 % | "
          f"{accuracy_text([base])} | | {c['n_true']} of {c['n']} |")
    noise_row(args)
    for arm in ARMS:
        # Of an interrupted call, builds that were only diverged count there.
        diverges = [json.loads((f / "diverge.json").read_text()) for f in folders_of(args, arm)]
        folders = folders_of(args, arm, "size.json")
        if not folders:
            continue
        runs = [json.loads((f / "run" / "run.json").read_text()) for f in folders]
        bits = json.loads((folders[0] / "model" / "quantisation.json").read_text())["expert_bits"]
        rows, closed = [row_of(r, "accuracy") for r in runs], [row_of(r, "closed") for r in runs]
        klds = [mean_sd([group(d, lang)["kld"]["mean"]["value"] for d in diverges]) for lang in ("all", "ja", "en", "zh")]
        p99 = mean_sd([group(d, "all")["kld"]["p99"]["value"] for d in diverges], 1)
        top1 = statistics.mean(group(d, "all")["top1_agreement"]["value"] for d in diverges)
        difference = statistics.mean(r["difference"] for r in rows)
        lowest, highest = min(r["lo"] for r in rows), max(r["hi"] for r in rows)
        size = statistics.mean(json.loads((f / "size.json").read_text()) for f in folders)
        seeds = f"{len(diverges)}" if len(diverges) == len(folders) else f"{len(diverges)} / {len(folders)}"
        print(f"| {arm} | {seeds} | {bits['code']:.2f} | {bits['total']:.2f} | {size / 2**20:.2f} | " + " | ".join(klds) +
              f" | {p99} | {100 * top1:.2f} % | {accuracy_text(runs)} | {100 * difference:+.1f} [{100 * lowest:+.1f}, {100 * highest:+.1f}] | "
              f"{sum(r['n_candidate'] for r in closed)} of {sum(r['n'] for r in closed)} |")
    print("\n| mean KLD, ratio | of all seeds | of one seed | aim |\n|---|---|---|---|")
    aim(args, "GPTQ-VQ over scalar at equal size", "ja-1.71", "scalar", "all", 0.53)
    aim(args, "GPTQ-VQ over scalar without focus", "ja-1.71", "scalar-no-focus", "all", 0.53)
    aim(args, "GPTQ-VQ over scalar at equal code bits", "ja-1.71", "scalar-1.71", "all", 0.53)
    aim(args, "naive VQ over naive scalar at equal size", "naive", "scalar-naive", "all", 0.53)
    aim(args, "GPTQ-VQ over scalar, both without focus", "no-focus", "scalar-no-focus", "all", 0.53)
    aim(args, "GPTQ-VQ over scalar, both with the spine in bf16", "bf16-spine", "scalar-bf16-spine", "all", 0.53)
    aim(args, "GPTQ-VQ over naive VQ", "ja-1.71", "naive", "all", 0.7)
    aim(args, "Japanese text: Japanese-strong over mathematics-heavy calibration", "ja-1.71", "arith-set", "ja", 1)
    print()
    for arm, (what, flags) in ARMS.items():
        shown = " ".join(f.replace(str(ROOT) + "/", "") for f in flags)
        print(f"- {arm}: {what}; `assay quantize MODEL OUT{' ' + shown if shown else ''}`")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assay", type=Path, default=ROOT / "build/release/assay")
    parser.add_argument("--out", type=Path, default=ROOT / "out/quantisation")
    parser.add_argument("--arms", default=",".join(ARMS), help="those to build (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="builds at a time")
    parser.add_argument("--threads", type=int, default=0, help="of each (0: an equal share of the cores)")
    parser.add_argument("--texts", type=int, default=1000, help="chats to diverge over")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--whats-new", action="store_true", help="build what the card's news compare, and print that table alone")
    args = parser.parse_args()
    if args.whats_new:
        args.arms = ",".join(dict.fromkeys(arm for _, *arms in WHATS_NEW for arm in arms))
    args.assay, args.out = args.assay.resolve(), args.out.resolve()
    if unknown := [arm for arm in args.arms.split(",") if arm not in ARMS]:
        parser.error(f"unknown arm {unknown[0]}, expected some of: {', '.join(ARMS)}")
    if not args.table:
        prepare(args)
        with ThreadPoolExecutor(args.jobs) as pool:
            builds = [pool.submit(build, args, arm, seed) for seed in args.seeds.split(",") for arm in args.arms.split(",")]
            try:
                for done in as_completed(builds):
                    done.result()
            except SystemExit:  # those that run come to their end; what they finish is kept
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if not args.whats_new:
        table(args)
    whats_new(args)


if __name__ == "__main__":
    main()
