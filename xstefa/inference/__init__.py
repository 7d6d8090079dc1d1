"""Windows over the calendar, one block in, one block out, and the lazy graph around it."""
