"""What a model must not have seen to be judged fairly: hold-outs, and guards against leakage."""
