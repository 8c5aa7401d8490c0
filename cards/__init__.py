"""Makes what people read: cards, the leaderboard, pictures."""
