"""What a run writes for other programs, read by those: its TensorBoard events by the tensorboard package, its report by
Chromium. Each is skipped where the program is not installed.

  read_back_test.py SOURCE PTRAIN
"""
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

PTRAIN = os.path.abspath(sys.argv.pop(2))
SOURCE = os.path.abspath(sys.argv.pop(1))


def colours_of(png):
    """Distinct colours of every 7th pixel of an 8-bit PNG without interlacing, as Chromium writes them."""
    with open(png, "rb") as file:
        data = file.read()
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    channels = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw, stride = zlib.decompress(packed), width * channels
    before, colours = bytearray(stride), set()
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for x in range(stride):
            a = line[x - channels] if x >= channels else 0
            b, c = before[x], before[x - channels] if x >= channels else 0
            if kind == 1:
                line[x] = (line[x] + a) & 255
            elif kind == 2:
                line[x] = (line[x] + b) & 255
            elif kind == 3:
                line[x] = (line[x] + (a + b) // 2) & 255
            elif kind == 4:
                p = a + b - c
                line[x] = (line[x] + min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]) & 255
        if y % 7 == 0:
            colours.update(bytes(line[x:x + 3]) for x in range(0, stride, channels * 7))
        before = line
    return width, height, colours


class ReadBack(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.output = os.path.join(cls.root, "run")
        subprocess.run(["bash", os.path.join(SOURCE, "launch", "demo_data.sh"), cls.root + "/data"], check=True, timeout=60)
        done = subprocess.run(
            [PTRAIN, "configs/demo.yaml", "--output", cls.output, "--data.train", cls.root + "/data/train.jsonl",
             "--data.validation", cls.root + "/data/validation.jsonl", "--parallel.tensor", "1", "--parallel.pipeline", "1",
             "--parallel.data", "1", "--batch.micro", "32", "--train.steps", "4", "--log.every", "1",
             "--evaluation.every", "2", "--log.trace"],
            cwd=SOURCE, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        with open(os.path.join(cls.output, "metrics.jsonl"), encoding="utf-8") as file:
            cls.rows = [json.loads(line) for line in file]

    @unittest.skipIf(importlib.util.find_spec("tensorboard") is None, "the package tensorboard is not installed")
    def test_tensorboard_reads_the_numbers_of_metrics_jsonl(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(self.output)
        events.Reload()
        for tag, key in (("train/loss", "loss"), ("train/grad_norm", "grad_norm"), ("train/lr", "lr"), ("eval/loss", "eval_loss")):
            expected = [(row["step"], row[key]) for row in self.rows if key in row]
            found = [(event.step, event.value) for event in events.Scalars(tag)]
            self.assertEqual([step for step, _ in found], [step for step, _ in expected], tag)
            for (_, value), (_, right) in zip(found, expected):
                self.assertAlmostEqual(value / right, 1, places=6, msg=tag)

    def test_the_report_is_drawn_by_a_browser(self):
        browser = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
        if browser is None:
            self.skipTest("no Chromium is installed")
        page, picture = os.path.join(self.root, "report.html"), os.path.join(self.root, "report.png")
        subprocess.run([PTRAIN, "report", self.output, "--out", page], check=True, capture_output=True, timeout=60)
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,700",
                        "--user-data-dir=" + self.root + "/profile", "--screenshot=" + picture, "file://" + page],
                       check=True, capture_output=True, timeout=120)
        width, height, colours = colours_of(picture)
        self.assertEqual((width, height), (1000, 700))
        self.assertIn(bytes((255, 255, 255)), colours)          # the paper
        self.assertTrue(any(abs(r - 0) < 40 and abs(g - 114) < 40 and abs(b - 178) < 40 for r, g, b in colours),
                        "nothing has the colour of the first run's line")
        self.assertGreater(len(colours), 20)                    # text and lines, not an empty page


if __name__ == "__main__":
    unittest.main(verbosity=2)
