"""Runs the steps of a program and says how each went: see steps.txt."""

import os
import sys
import traceback
from datetime import date, datetime, timezone
from decimal import Decimal

URL = os.environ["DATABASE_URL"]
FIRST = int(os.environ["FIRST"])
USERS = list(range(FIRST, FIRST + 16))

TEXT = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t."
NUMBERS = [1, None, -3, 2147483647]
WORDS = ["a", "b c", 'quo"te', "", None, "NULL", "ünï,{}\\"]
DATA = {"a": 1, "b": [True, None, "ü'\"\\"], "c": {"x": 1.5}}
AT = datetime(2024, 2, 29, 12, 34, 56, 789012, timezone.utc)
LOCAL = datetime(2024, 12, 31, 23, 59, 59, 999999)
DAY = date(1999, 12, 31)
PRICE = Decimal("12345678901234.567891")
BIG = Decimal("1234567890123456789012345678901234567890.0123456789")
BYTES = bytes(range(256))


class Missing(Exception):
    """The driver has no such thing."""


class Wrong(Exception):
    """It is not as with one Postgres."""


def same(got, expected):
    if got != expected:
        raise Wrong(f"got {got!r}, expected {expected!r}")


class Steps:
    def __init__(self):
        self.failed = False

    def run(self, name, step, *arguments):
        """Whether it went well. `fail` is said with what the exception says, the rest goes to standard error."""
        try:
            step(*arguments)
            self.say("ok", name)
        except Missing as e:
            self.say("none", name, e)
        except Exception as e:
            self.fail(name, e)
            return False
        return True

    def fail(self, name, e):
        self.failed = True
        traceback.print_exception(e)
        said = f"{type(e).__name__}: {e}" if not isinstance(e, Wrong) else e
        self.say("fail", name, said)

    def say(self, how, name, why=None):
        why = "" if why is None else ": " + " ".join(str(why).split())[:400]
        print(f"{how} {name}{why}", flush=True)

    def end(self):
        sys.exit(1 if self.failed else 0)


def fails(sqlstate, exceptions, run, code=lambda e: e.sqlstate):
    """Runs what must fail with this SQLSTATE, and gives the exception."""
    try:
        run()
    except exceptions as e:
        same(code(e), sqlstate)
        return e
    raise Wrong(f"no error, where {sqlstate} was expected")
