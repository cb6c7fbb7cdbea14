"""Say in plain words what is wrong with a JSON file beside weights."""

import json

from pydantic import ValidationError

from spar_bench.validation import dotted, mistakes


def plainly(error: Exception) -> str:
    """Return what an error while a file was read says about it, to follow "but the file"."""
    match error:
        case OSError():
            return f"cannot be read ({error.strerror or error})"
        case KeyError():
            return f"lacks {error.args[0]}"
        case json.JSONDecodeError():
            return f"is not JSON ({error})"
        case UnicodeDecodeError():
            return "is not text"
        case ValidationError():
            first = next(mistakes(error))
            return f"has a wrong {dotted(first.steps)} ({first.text.partition(', but got')[0]})"
        case ZeroDivisionError():
            return "states a size of 0"
        case TypeError() | AttributeError():
            return "has values of another kind than expected"
    return " ".join(str(error).split())
