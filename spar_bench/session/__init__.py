"""From a spec to its report: the one place that knows every part."""
