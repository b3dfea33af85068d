"""What the commands of operating.py say below their own `--help`."""

RUNS = """Every run of the line, of the monitor and of a promotion leaves a record: who or what triggered it and why,
when it began and ended, how it ended, and what ran.

examples:
  python -m pipelines runs
  python -m pipelines runs --last 100 --json"""
REAP = """A run whose processes are gone (killed, out of memory, power cut) is marked as crashed, here and in Prefect.
One that nobody watched is resumed once, if infra/operations.yaml says `runs.resume`. Every run does the first part when
it starts, and `serve` does both all the time; so this is for cron, or for looking by hand.

examples:
  python -m pipelines reap
  python -m pipelines reap --resume"""
MONITOR = """Reads what is new in monitor.data (infra/operations.yaml), runs the live bundle on it, holds it against the
bundle's reference profile, and judges it by monitor.rules. A failed rule retrains, if monitor.then says so, with the
cause in the record of the run, unless the last retraining was too recent. The page is reports/monitor/index.html.

Ends with 0 where no rule failed, or it led to a retraining that ended well; with 3 where a rule failed and nothing was
done about it, or what was made is not fit to go live. Where nothing new has arrived, the last answer holds: but a
retraining that died, and what could not be committed, released or promoted, is gone on with at the next look, and one
that failed (a full disk, a mistake) is tried again after monitor.cool_down_hours. No more of them in a week than
monitor.max_retrainings: beyond, a person must look.

examples:
  python -m pipelines monitor
  python -m pipelines monitor --only-look"""
PROMOTE = """Takes a signed release whose data, quality and infrastructure were all blessed, and which loses no more
accuracy to the live one than promote.max_loss, by the difference measured; its interval is told. --allow-older does not
skip that. Without a live one there is nothing to compare with. Then it swaps the pointer deployed/ENVIRONMENT.json,
whole or not at all, and registers the release as a GTO stage in git.

examples:
  python -m pipelines promote                      the newest release
  python -m pipelines promote 1.2.0 --environment staging --because "asked for by the shop\""""
ROLLBACK = """The bundle that was live before is live again, after every file of it was verified; takes under 2 s.

example:
  python -m pipelines rollback --because "complaints since noon\""""
PRUNE = """Removes old records of runs, checkpoints that nobody came back for, old releases (never a live one, nor the
one before it), flow runs in Prefect, and what DVC's cache need not keep, as `keep` in infra/operations.yaml says.

keep.dvc_cache names what stays of that cache besides the work tree and what is younger than keep.work_days:
  commits  what any commit names that a branch or a tag leads to (the default)
  tags     what tags and the heads of branches name; other commits cannot be checked out whole any more
  all      everything
It is kept for every project too that is known to share the cache. Where one of those cannot be seen now, or the cache
does not lie in this project, it is left alone.

examples:
  python -m pipelines prune --dry-run
  python -m pipelines prune"""
BACKTEST = """Replays dated data: trains on what there was up to each date, and measures that model on later periods.
The page is reports/backtest/index.html.

example:
  python -m pipelines backtest --date date --period month --quick"""
COMMENT = """For CI: markdown for a pull request, with the verdict, the gate's rules, the metrics against another
commit, what ran, the training curve and the groups. `make ci-comment` writes it; infra/ci/post.py posts it.

examples:
  python -m pipelines comment
  python -m pipelines comment --base origin/main --out comment.md --link report=https://ci.example/page"""
SWEEP = """The same line for several settings side by side, each in a workspace of its own below .graftline/sweep, which
is removed afterwards. DVC's cache is shared: what no setting changes is computed once, and a setting that was finished
is not run again. How many run at a time, and where, stands in infra/operations.yaml, `fan_out` (threads, dask, ray).
Settings are compared on the validation split; the table is in reports/sweep/. Nothing is applied.

examples:
  python -m pipelines sweep --over select.candidates --until evaluate
  python -m pipelines sweep --over finetune.strategy --values '[{name: full, epochs: 3}, {name: lp_ft}]'
  python -m pipelines sweep --changes settings.yaml

settings.yaml:
  - {name: small, set: {finetune.batch_size: 16}}
  - {name: slow, set: {finetune.batch_size: 64, finetune.strategy: {name: full, epochs: 12}}}"""
TUNE = """Looks for better settings of `finetune`, one trial after the other: first what params.yaml has, then what
Optuna's TPE draws. Trials are judged on the validation split alone, without the reference runs, and given up early
where they are worse than the median of the others. Where another one won, params.yaml gets its values; comments stay.
It stays as it is where the gain over the first trial is below 1 % of that one's loss, or 0.1 points of another metric.

Which keys: of finetune.strategy those that matter (rates, epochs, blocks, decay, weights of penalties), and
weight_decay, each around what it is now. --keys names them, or others of `finetune`, with limits of your own. What each
of several keys mattered is told from 30 finished trials on: of fewer it is chance.

It stops when the minutes are over and goes on with the same command: trials that ended are in .graftline/tune, and the
one under way goes on from its last epoch, also where a winner was written: limits stay around what was there at first.
Another value in `finetune` or `run`, other data or other code begin anew; so does removing .graftline/tune, around the
winner. The table is in reports/tune/.

examples:
  python -m pipelines tune --minutes 30
  python -m pipelines tune --minutes 120 --trials 40 --dry-run
  python -m pipelines tune --minutes 30 --keys learning_rate backbone_learning_rate=1e-5..1e-3 frozen_norm
  python -m pipelines tune --minutes 30 --keys 'batch_size=[16, 32, 64]' weight_decay --metric validation_accuracy"""
SCORE = """Every hash of the bundle is checked first, and its signature, as `predict` does. The input is a folder of
files, or a file of lines (.txt, .jsonl). Its samples are cut into shards, which are labelled side by side as `fan_out`
in infra/operations.yaml says, and gathered in the input's order: the same bytes however many shards.

examples:
  python -m pipelines score releases/digits-1.0.0 ~/pictures --out labels.csv --key PUBLIC.pem
  python -m pipelines score artifacts/handoff/bundle mails.jsonl --out labels.parquet --shards 8 --unsigned"""
SERVE = """Everything that one machine needs: Prefect's server on 127.0.0.1, the deployments and schedules of
infra/prefect/prefect.yaml, and a watch for runs that died and for new data. Ends with Ctrl-C; run it by systemd or the
like (infra/systemd) to have it back after a reboot.

infra/operations.yaml and params.yaml are read anew for each look and each run. A change of infra/prefect/prefect.yaml,
of run.name or of the environment is seen after the next start: end it and start it again.

The server refuses what pages of other sites send, but whoever has an account on this machine can use it and so run this
project's flows as you: on a shared machine, set PREFECT_SERVER_API_AUTH_STRING=NAME:PASSWORD for serve, and
PREFECT_API_AUTH_STRING to the same for whatever else you start here. It listens on 127.0.0.1 only: from another machine
`ssh -L 4200:127.0.0.1:4200 HOST` shows its pages, and infra/compose has a server that a proxy can stand before.

examples:
  python -m pipelines serve
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m pipelines serve"""
