"""Every key, file and exit code.

For `{stage}` in `val`, `test`; loader i > 0 adds `/dataloader_idx_i` to keys, and its card is `{stage}_{i}.json`.

| key | what |
|---|---|
| `{stage}/all/{score}` | accuracy, precision, recall and f1 of the validation's own predictions, nothing hidden |
| `{stage}/{modality}/{score}` | the same on the samples that have the modality, or where `slices=` says |
| `{stage}/{modality}/support` | how many these are |
| `{stage}/ablation/{coalition}/{score}` | accuracy and f1 when shown only these modalities; `none` is none of them |
| `{stage}/drop/{modality}/{score}` | what is lost without it, in accuracy and f1 |
| `{stage}/shapley/{modality}/{score}` | its fair share; they sum to all − none |
| `{stage}/class/{name}/{score}` | precision, recall and f1 of each class, or label, up to 50 |
| `{stage}/verdict` | 2 good, 1 mixed, 0 bad, −1 undecided |
| `{key}/low`, `{key}/high` | bounds of the interval of a score, drop or share, with `log_intervals=True` |

With `by={"language": …}` the slices `language/de` have keys as modalities have, and with `scores=` those scores; what could
not be scored is counted in `{stage}/refused`; a monitor's `name=` stands before each key. With `samples="all"` the answers
to every sample are in `{stage}.samples.parquet`.

All are monitorable; loggers get the whole's scores, each modality's recall, F1 and drop in F1, and the verdict, or
everything with `log="all"`.

| file in `modality/` | what |
|---|---|
| `{stage}.json` | the scorecard: `Scorecard.from_json` reads it, `mm-metrics report` draws it, `mm-metrics gate` judges it |
| `history.jsonl` | one line an epoch: epoch, step and every key |
| `samples.jsonl` | which samples to look at, by kind and modality |
| `report.html` | one page that says it all, written at the end |
| `summary.png`, `summary_{stage}_{i}.png` | the page's first picture |
| `{stage}_{picture}.png` | pictures, where there are loggers and none takes any |
| `leakage.json` | what a check for leaks found: the verdict and the page read it, `gate` and `report` with `--leakage` |

| exit code of `mm-metrics` | what |
|---|---|
| 0 | done; of `gate`: good |
| 1 | of `leakage`: something is shared; of `threshold`: no threshold reaches the bar |
| 1, 2, 3 | of `gate`: bad, mixed, undecided |
| 4 | the command line is wrong, said with its usage |
| 5 | something given is refused, said in one line |
| 6 | a bug of ours; `MM_METRICS_DEBUG=1` shows where |
| 130 | interrupted by the user |

>>> from mm_metrics import cli
>>> cli.EXIT, cli.USAGE, cli.REFUSED, cli.CRASHED, cli.INTERRUPTED
({'good': 0, 'bad': 1, 'mixed': 2, 'undecided': 3}, 4, 5, 6, 130)
"""
