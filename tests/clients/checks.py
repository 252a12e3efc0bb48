"""What the checks are made of."""
import warnings

import redis

# Old commands are checked too; that the client advises against them is its own affair.
warnings.simplefilter("ignore", DeprecationWarning)
CHECKS = []


def check(function):
    """Enters a check: it gets a client of an empty server, and the protocol's version."""
    CHECKS.append((function, False))
    return function


def check_ours(function):
    """Enters a check of what Redis 7.0 has not."""
    CHECKS.append((function, True))
    return function


def same(got, wanted):
    if got != wanted or type(got) is not type(wanted):
        raise AssertionError("got %r, wanted %r" % (got, wanted))


def refused(text, call, *arguments, **named):
    try:
        got = call(*arguments, **named)
    except redis.ResponseError as error:
        if text not in str(error):
            raise AssertionError("error %r lacks %r" % (str(error), text))
        return
    raise AssertionError("no error but %r" % (got,))
