"""The command line: parse, call, show. No decisions and no sentences of its own."""
