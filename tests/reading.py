"""What the files and sentences of pages say."""

import csv
import re


def numbers(text):
    """The numbers in a sentence, in their order."""
    found = re.findall(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?", text)
    return [float(number.replace(",", "").replace("−", "-")) for number in found]


def read_csv(path):
    """The rows."""
    return list(csv.DictReader(path.read_text().splitlines()))
