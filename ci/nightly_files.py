"""A night's junit.xml and summary.md, made of those that assay wrote for each model."""
import json
import xml.etree.ElementTree as xml

COUNTS = ("tests", "failures", "errors", "skipped")
SIGNS = {"pass": "✅", "regression": "❌"}


def cell(text):
    """One cell of a Markdown table: nothing in it is markup."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|~":
        text = text.replace(sign, "\\" + sign)
    return text.replace("://", ":\\//")


def verdict_case(name, result):
    case = xml.Element("testcase", classname="night", name=name, time="0.000")
    text = f"{result['state']}: {result['note']}" if result["note"] else result["state"]
    if result["code"] == 1:
        xml.SubElement(case, "failure", message=text, type=result["state"])
    elif result["code"] != 0:
        xml.SubElement(case, "error", message=text, type=result["state"])
    else:
        xml.SubElement(case, "system-out").text = text
    return case


def lift_suspicions(suite):
    """A suspicion that the second stage did not confirm is no error any more; what was suspected stays to be read."""
    for case in suite.iter("testcase"):
        error = case.find("error")
        if error is not None and error.get("type") in ("suspected", "invalid"):
            case.remove(error)
            out = case.find("system-out")
            out = xml.SubElement(case, "system-out") if out is None else out
            out.text = f"not confirmed by fresh draws: {error.get('message')}\n{out.text or ''}"


def recount(suite):
    cases = list(suite.iter("testcase"))
    for count, tag in zip(COUNTS, (None, "failure", "error", "skipped")):
        suite.set(count, str(sum(tag is None or case.find(tag) is not None for case in cases)))


def combined_junit(folder, record):
    night = xml.Element("testsuite", name="night", time="0.000")
    suites = [night]
    for name, result in record["models"].items():
        night.append(verdict_case(name, result))
        file = folder / name / "run" / "junit.xml"
        if result["state"] == "could not run" or not file.exists():
            continue
        for suite in xml.parse(file).getroot():
            suite.set("name", f"{name}: {suite.get('name')}")
            for case in suite.iter("testcase"):
                case.set("classname", f"{name}.{case.get('classname')}")
            if result["code"] == 0 and result["run_code"] != 0:
                lift_suspicions(suite)
            suites.append(suite)
    root = xml.Element("testsuites", name=f"assay nightly {record['night']}")
    for suite in suites:
        recount(suite)
        root.append(suite)
    for count in COUNTS:
        root.set(count, str(sum(int(suite.get(count)) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time')) for suite in suites):.3f}")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def combined_summary(folder, record):
    """What is not a pass is shown in full, the rest folded."""
    code = record["exit_code"]
    word = {0: "pass", 1: "regression", 2: "could not run", 3: "invalid"}[code]
    out = [f"# {SIGNS.get(word, '⚠️')} assay nightly {record['night']}: {word} (exit code {code})", "",
           f"{cell(record['assay'].splitlines()[0])}; suites {cell(' '.join(record['profile']['suites']))}, "
           f"profile {record['profile']['profile']}", "",
           "| model | verdict | against | samples | |", "| --- | --- | --- | --- | --- |"]
    pages = []
    for name, result in record["models"].items():
        run = folder / name / "run"
        has_run = result["state"] != "could not run" and (run / "summary.md").exists()
        n = json.loads((run / "run.json").read_text(encoding="utf-8"))["samples"]["n"] if has_run else "–"
        out.append(f"| {cell(name)} | {SIGNS.get(result['state'], '⚠️')} {result['state']} | "
                   f"{cell(result['baseline'] or 'no baseline')} | {n} | {cell(result['note'])} |")
        if not has_run:
            continue
        page = (run / "summary.md").read_text(encoding="utf-8")
        if result["state"] == "pass":
            pages.append(f"<details><summary>{cell(name)}</summary>\n\n{page}\n</details>\n")
        else:
            pages.append(f"# {cell(name)}\n\n{page}")
    return "\n".join(out) + "\n\n" + "\n".join(pages)
