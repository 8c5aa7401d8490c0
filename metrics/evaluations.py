"""Every open kind of result, one line each: leaderboard and card show what is listed here."""

from metrics.representation.evaluation import REPRESENTATION
from metrics.robustness.evaluation import ROBUSTNESS

EVALUATIONS = {
    REPRESENTATION.kind: REPRESENTATION,
    ROBUSTNESS.kind: ROBUSTNESS,
}
