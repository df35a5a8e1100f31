"""How sure a number is.

Every score of a scorecard has an interval, and so has every drop, gain and Shapley value.

**Where they come from.** While counting, each sample is also counted into R bootstrap replicates with a weight that is
Poisson distributed with mean 1 (Chamandy et al. 2012). The weight comes from a hash of the seed, the shard and the
sample's number, not from a random stream. So every coalition, every rank and every model that sees the sample gives it
the same weight, and *differences are paired*: a drop's interval is that of the difference on the same samples, which is
much shorter than two intervals side by side suggest.

>>> import torch
>>> from mm_metrics import CoalitionConfusionMatrix
>>> metric = CoalitionConfusionMatrix(("image", "audio"), num_classes=2, bootstrap=200)
>>> target = torch.arange(400) % 2
>>> without = torch.where(torch.arange(400) % 10 == 0, 1 - target, target)  # wrong on every tenth without audio
>>> metric.update({"all": target, "image": without}, target, index=torch.arange(400))
>>> drop = metric.scorecard().contributions("accuracy")["audio"].drop
>>> round(drop.value, 3), drop.low > 0
(0.1, True)

**Intervals of accuracy, precision and recall** are Wilson's (1927) with the number of samples that would give a
proportion the standard error seen: they stay within 0…1 and do not collapse where all replicates agree. A mean over
classes reaches at least as far as the intervals of its classes do together (MOVER: Zou and Donner 2008), F1 as the
proportion that gives it, Jaccard's of what is predicted or actual, so that a class of three samples keeps it open.

**Numbers of samples.** With `index=` (the Trainer's monitor and `mm_metrics.sampler.numbered` give it) intervals are
equal on any number of ranks, and cards of the same samples can be compared in pairs, `new - old`. Without it samples
are numbered as they come, and shards need `shard=`.

**How many replicates?** 200 are enough for a 95% interval here, since only their spread is used. `bootstrap=0` counts
faster and gives intervals of plain proportions only.

**Groups: what is not independent.** Ten clips of one video, or a hundred turns of one speaker, are worth less than that
many samples. Say which belong together, and every interval, test, minimum of support and piece of advice counts groups;
one sample a group gives the numbers that there are without.

>>> def interval(group):
...     metric = CoalitionConfusionMatrix(("image", "audio"), num_classes=2, coalitions=["all"], bootstrap=200)
...     hits = torch.arange(400) // 10 % 4 > 0  # all ten clips of every fourth video are missed
...     metric.update({"all": torch.where(hits, target, 1 - target)}, target, index=torch.arange(400), group=group)
...     return metric.scorecard().interval("accuracy")
>>> clips, videos = interval(torch.arange(400)), interval(torch.arange(400) // 10)
>>> videos[1] - videos[0] > 2 * (clips[1] - clips[0])
True

**Many findings at once.** ``QualityGate(family_wise=True)`` holds the whole verdict to one confidence, and
``mm-metrics gate --against`` all falls together (Holm 1979). What is left open comes with how many samples would settle
it, in 8 of 10 new draws.

**Do they hold?** ``python scripts/coverage.py`` draws data sets from 26 populations (30 to 2,000 samples, rare classes and
labels, groups of 5 to 20, slices of a tenth, shards, heavy errors) and asks how often the 95% interval of a score, of a
drop and of a difference of two models holds the truth. In 100 to 200 data sets each (2026-11-25; the confusion's scores
in 15 of the populations) nearly all lie at 92% or more and none below 91%; the drop of d′ on a slice of 30 holds in 93% of
300, among those data sets where it has an interval at all. What no replicate can know is bounded, not estimated: two
samples more that disagree (Bonett and Price 2012), a class never answered, a group never seen. So intervals of a few
samples, of a few groups and of differences that few samples make hold at least 95%, often 99 or 100.

**How often is it sure, and wrong?** ``python scripts/alarms.py`` asks verdicts of simulated models, 400 data sets a line
(2026-11-25):

| true model | bad | surely bad | sure of a level that is not so | the same, family-wise |
|---|---|---|---|---|
| recall .60 at a bar of .50, n=100 | 12% | 0.2% | 0.2% | 0.0% |
| the same, asked on two modalities | 32% | 1.2% | 1.2% | 0.0% |
| the same, 20 groups of 10 | 0% | 0.0% | 0.0% | 0.0% |
| recall .501 at a bar of .50, n=100 | 44% | 3.8% | 3.8% | 0.2% |
| recall .79, good from .80, n=400 | 0% | 0.0% | 1.0% | 0.2% |
| ten classes of recall .90, n=300 | 0% | 0.0% | 0.0% | 0.0% |
| ten classes of recall .60 at a bar of .55, n=300 | 98% | 7.5% | 7.5% | 0.2% |

Family-wise no line is above its 5%; without it each interval has 5% of its own, and a model at many bars meets one of
them. Two equal models fall against each other (``gate --against``, 4 to 12 questions) in 0 to 0.5% of 200 data sets in six
of seven populations, and in 1.5% [.5, 4.3] in the one of 10 groups; at most 5% are due.

**Weak slices** (`card.weak_slices`, `gate --by`) are proposed on one half of the data and judged on the other, so that
what is reported holds. In 200 sets of 1,000 samples with four languages and five channels and nothing weak, 4 had a false
one (2%; at most 5% are due); in 60 of 60 sets of 2,000 a language of four whose accuracy was 15 points below the others'
was found. Smaller slices, or smaller differences, need more samples.

**The best of many epochs** is better than it is: the epoch was chosen by the same samples that score it, and no interval
knows that. Choose on `val`, report `test` once. Likewise one seed a side says nothing of what another seed of the same
training would have given; the gate takes several cards a side for that.
"""
