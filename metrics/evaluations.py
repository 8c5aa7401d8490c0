"""Every open kind of result, one line each: leaderboard and card show what is listed here."""

from metrics.representation.evaluation import REPRESENTATION

EVALUATIONS = {evaluation.kind: evaluation for evaluation in (REPRESENTATION,)}
