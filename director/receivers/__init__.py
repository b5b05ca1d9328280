"""How a notification gets to its receiver: by a script, a webhook or e-mail."""
