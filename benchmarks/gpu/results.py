"""Reads what benchmarks/gpu.sh left in its directory: how each step ended and the JSON that its program printed. Judges
nothing; that is table.py. Standard library alone."""
import json
import os
import re


def json_lines(path):
    rows = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("{"):
                    try:
                        rows.append(json.loads(line))
                    except ValueError:
                        pass  # the last line of a program that was stopped
    return rows


class Results:
    def __init__(self, directory):
        self.directory = directory
        self.steps = {row["name"]: row for row in json_lines(os.path.join(directory, "steps.jsonl"))}

    def text(self, name, kind="out"):
        path = os.path.join(self.directory, "logs", f"{name}.{kind}")
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def names(self, pattern):
        """Names of steps that ran or should have, in their order."""
        return [name for name in self.steps if re.fullmatch(pattern, name)]

    def rows(self, pattern):
        """Every JSON object that the steps of these names printed before they ended, well or not."""
        return [{"step_name": name, **row} for name in self.names(pattern)
                for row in json_lines(os.path.join(self.directory, "logs", name + ".out"))]

    def best(self, pattern, key, pick=max, where=lambda row: True):
        """pick over all objects that have the key, or None."""
        values = [row[key] for row in self.rows(pattern) if row.get(key) is not None and where(row)]
        return pick(values) if values else None

    def why_not(self, pattern):
        """Why there is no figure, in words."""
        reasons = []
        for name in self.names(pattern):
            step = self.steps[name]
            if step["code"] != 0:
                reasons.append(step["reason"] or f"it ended with exit code {step['code']}")
        if reasons:
            return reasons[-1]
        return "its program does not report it" if self.names(pattern) else "it was not asked for"

    def metrics(self, run):
        return json_lines(os.path.join(self.directory, run, "metrics.jsonl"))


def test_counts(text):
    """(passed, failed, skipped) of googletest's output."""
    def count(tag):
        return len(re.findall(rf"^\[ *{tag} *\] \S+.*\(\d+ ms\)", text, re.M))
    return count("OK"), count("FAILED"), count("SKIPPED")


def sanitizer_errors(text):
    """Errors that compute-sanitizer counted, or None where it said nothing."""
    found = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", text)
    return sum(int(number) for number in found) if found else None
