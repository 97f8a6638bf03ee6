"""A stranger's check of a ledger: python3 verify_ledger.py [--expect-head HEADFILE] PART... (oldest first). Exit status 0: it is whole; 1: it is not.

Each line is a JSON object that ends with `"seq":N,"hash":"H"}`. H is the SHA-256, in hex, over the line before's H (64 zeros for line 1) and this
line's bytes before `,"hash":"`. N counts from 1. A part that doesn't begin with line 1 names the line before's H as `"previous"`, just before `seq`.
"""

import hashlib
import json
import sys


def verify(parts, head=None):
    previous, number = b"0" * 64, 0
    for part in parts:
        for line in open(part, "rb"):
            content, _, end = line.rpartition(b',"hash":"')
            if number == 0 and b',"previous":"' in content[-128:]:
                named, _, number = content.rpartition(b',"seq":')
                previous, number = named[-65:-1], int(number) - 1
            number += 1
            digest = hashlib.sha256(previous + content).hexdigest().encode()
            if end != digest + b'"}\n' or not content.endswith(b',"seq":%d' % number):
                return f"line {number} was changed, or one before it is missing"
            previous = digest
            if head and head["seq"] == number and head["hash"] == previous.decode():
                head = None
    if head:
        return f"line {head['seq']} is known to have been written, and is not there as it was"
    print(f"{number} lines, whole; the last hash is {previous.decode()}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    expected = json.load(open(arguments[1])) if arguments[0] == "--expect-head" else None
    sys.exit(verify(arguments[2:] if expected else arguments, expected))
