"""What reaches the screen: answers, notices, tables and pictures."""
