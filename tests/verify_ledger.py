"""A stranger's check of a ledger: python3 verify_ledger.py FILE. Exit status 0: the chain is whole; 1: it is not.

Each line is a JSON object that ends with `"seq":N,"hash":"H"}`. H is the SHA-256, in hex, over the line before's H (64 zeros for the first
line) and this line's bytes before `,"hash":"`. N counts from 1.
"""

import hashlib
import sys


def verify(path):
    previous, number = b"0" * 64, 0
    with open(path, "rb") as ledger:
        for number, line in enumerate(ledger, 1):
            content, _, end = line.rpartition(b',"hash":"')
            digest = hashlib.sha256(previous + content).hexdigest().encode()
            if end != digest + b'"}\n' or not content.endswith(b',"seq":%d' % number):
                return f"line {number} was changed, or one before it is missing"
            previous = digest
    print(f"{number} lines, whole; the last hash is {previous.decode()}")


if __name__ == "__main__":
    sys.exit(verify(sys.argv[1]))
