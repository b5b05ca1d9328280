"""The `director` command: click commands, one file a family. Heavy imports stand inside the commands."""
