"""Every key, file and exit code.

For `{stage}` in `val`, `test`; loader i > 0 adds `/dataloader_idx_i` to keys, and its card is `{stage}_{i}.json`.

| key | what |
|---|---|
| `{stage}/all/accuracy` `precision` `recall` `f1` | the validation's own predictions, nothing hidden |
| `{stage}/{modality}/accuracy` … `f1`, `/support` | on the samples that have the modality, or where `slices=` says |
| `{stage}/ablation/{coalition}/accuracy`, `/f1` | shown only these modalities; `none` is none of them |
| `{stage}/drop/{modality}/accuracy`, `/f1` | what is lost without it |
| `{stage}/shapley/{modality}/accuracy`, `/f1` | its fair share; they sum to all − none |
| `{stage}/verdict` | 2 good, 1 mixed, 0 bad, −1 undecided |
| `…/low`, `…/high` | bounds of the interval, with `log_intervals=True` |

All are monitorable; loggers get the whole's scores, each modality's recall, F1 and drop in F1, and the verdict, or
everything with `log="all"`.

| file in `modality/` | what |
|---|---|
| `{stage}.json` | the scorecard: `Scorecard.from_json` reads it, `mm-metrics report` draws it, `mm-metrics gate` judges it |
| `history.jsonl` | one line an epoch: epoch, step and every key |
| `samples.jsonl` | which samples to look at, by kind and modality |
| `report.html` | one page that says it all, written at the end |
| `summary.png`, `summary_{stage}_{i}.png` | the page's first picture |
| `{stage}_confusions.png` … | pictures, where no logger takes them |
| `leakage.json` | what a check for leaks found; the verdict and the page read it |

| exit code of `mm-metrics` | what |
|---|---|
| 0 | done; of `gate`: good |
| 1, 2, 3 | of `gate`: bad, mixed, undecided |
| 4 and more | an error, said in one line: a wrong argument, a file that is refused, a bug, or the user's interrupt |
"""
