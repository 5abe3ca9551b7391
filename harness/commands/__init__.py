"""The commands, a file for each room they open. Everything heavy is imported inside them, so that `--help` is instant."""
