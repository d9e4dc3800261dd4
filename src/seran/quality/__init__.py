"""What a result is worth: checks of its promises, and the report that shows it beside its scan."""
