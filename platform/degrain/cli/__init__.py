"""The command `degrain`: one module per subcommand."""
