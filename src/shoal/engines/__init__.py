"""Where replicas run. Law: engines don't know each other; `render_*` is pure, `apply_*` acts."""
