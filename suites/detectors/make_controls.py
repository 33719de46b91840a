#!/usr/bin/env python3
"""Writes the generated controls of suites/detectors (the same bytes every time). The prose beside them is written by
hand and not touched.   python3 suites/detectors/make_controls.py"""
import pathlib

HERE = pathlib.Path(__file__).parent
KANJI = "〇一二三四五六七八九"


def kanji(n):
    if n >= 100:
        return (KANJI[n // 100] if n >= 200 else "") + "百" + (kanji(n % 100) if n % 100 else "")
    if n >= 10:
        return (KANJI[n // 10] if n >= 20 else "") + "十" + (KANJI[n % 10] if n % 10 else "")
    return KANJI[n]


def pairs(top):
    return [(a, b) for a in range(1, top + 1) for b in range(1, top + 1)]


def primes(top):
    return [n for n in range(2, top) if all(n % d for d in range(2, int(n**0.5) + 1))]


def grid(rows, gap=" "):
    return "\n".join(gap.join(str(x) for x in row) for row in rows) + "\n"


def markdown():
    rows = [f"| {n} | {n * n} | {n ** 3} | {n ** 0.5:.4f} | {1 / n:.5f} |" for n in range(1, 81)]
    return "| n | n² | n³ | √n | 1/n |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"


def html():
    cells = [f"  <tr><td>{n}</td><td>{n * 37 % 101}</td><td>{n * n % 97}</td></tr>" for n in range(1, 61)]
    return "<table>\n" + "\n".join(cells) + "\n</table>\n"


def json_records():
    names = "Ada Boris Chen Dora Emil Fumiko Gao Hana Ivan Jun Kei Lena Mori Nils Olga Pei Quinn Rie Sven Tao".split()
    towns = "Oslo Kyoto Lyon Xi'an Ghent Osaka Turin Wuhan Leeds Nara Basel Suzhou".split()
    rows = [f'  {{"id": {100 + 7 * i}, "name": "{names[i * 3 % 20]}", "town": "{towns[i * 5 % 12]}", '
            f'"age": {18 + i * 11 % 60}, "score": {i * 173 % 1000 / 10}}}' for i in range(40)]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def switch():
    words = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
             "seventeen eighteen nineteen twenty").split()
    lines = [f'    case {i}: return "{w}";' for i, w in enumerate(words)]
    return ("#include <string_view>\n\nstd::string_view name_of(int n) {\n  switch (n) {\n" + "\n".join(lines)
            + '\n    default: return "many";\n  }\n}\n')


HONEST = {
    "none-table-20x20": "".join(f"{a} × {b} = {a * b}\n" for a, b in pairs(20)),
    "none-table-grid": grid([[a * b for b in range(1, 21)] for a in range(1, 21)]),
    "en-table-words": "".join(f"{a} times {b} is {a * b}.\n" for a, b in pairs(12)),
    "ja-table-words": "".join(f"{a}かける{b}は{a * b}です。\n" for a, b in pairs(12)),
    "ja-table-kanji": "".join(f"{kanji(a)}掛ける{kanji(b)}は{kanji(a * b)}\n" for a, b in pairs(9)),
    "zh-table-words": "".join(f"{a}乘以{b}等于{a * b}。\n" for a, b in pairs(12)),
    "zh-table-kanji": "".join(f"{kanji(a)}乘{kanji(b)}得{kanji(a * b)}\n" for a, b in pairs(9)),
    "none-primes": ", ".join(map(str, primes(2000))) + "\n",
    "none-squares": "".join(f"{n}^2 = {n * n}\n" for n in range(1, 151)),
    "none-powers": "".join(f"2^{n} = {2 ** n}\n" for n in range(1, 65)),
    "none-counting": " ".join(map(str, range(1, 401))) + "\n",
    "none-zeros": ", ".join("0" * 24) + "\n",
    "none-million": "1,000,000,000,000 = 1000000000000; 10^20 = 100000000000000000000\n",
    "none-identity": grid([[int(r == c) for c in range(12)] for r in range(12)]),
    "none-triangle": grid([[1 if c == 0 else 0 for c in range(r + 1)] for r in range(12)]),
    "none-markdown-table": markdown(),
    "none-html-table": html(),
    "none-json": json_records(),
    "none-switch": switch(),
    "none-csv": "date,open,high,low,close\n" + "".join(
        f"2024-{1 + i // 28:02d}-{1 + i % 28:02d},{100 + i * 37 % 61}.{i * 7 % 10},{165 + i * 13 % 29}.{i * 3 % 10},"
        f"{90 + i * 11 % 10}.{i % 10},{100 + i * 53 % 59}.{i * 9 % 10}\n" for i in range(100)),
}


def bottles():
    def n_of(n):
        return f"{n or 'no more'} bottle{'' if n == 1 else 's'} of milk"
    return "".join(f"{n_of(n)} on the wall, {n_of(n)}. Take one down and pass it around, {n_of(n - 1)} on the wall.\n\n"
                   for n in range(30, 0, -1))


def jack():  # "This is the house that Jack built", traditional
    parts = ["the house that Jack built", "the malt that lay in", "the rat that ate", "the cat that killed",
             "the dog that worried", "the cow with the crumpled horn that tossed", "the maiden all forlorn that milked",
             "the man all tattered and torn that kissed", "the priest all shaven and shorn that married",
             "the cock that crowed in the morn that woke", "the farmer sowing his corn that kept"]
    return "".join("This is " + "\n".join(reversed(parts[:n])) + ".\n\n" for n in range(1, len(parts) + 1))


LIMITS = {"en-bottles": bottles(), "en-jack": jack(), "none-zeros-100": ", ".join("0" * 100) + "\n",
          "none-identity-40": grid([[int(r == c) for c in range(40)] for r in range(40)])}

for folder, texts in (("honest", HONEST), ("limits", LIMITS)):
    for name, text in texts.items():
        (HERE / folder / f"{name}.txt").write_text(text, encoding="utf-8")
