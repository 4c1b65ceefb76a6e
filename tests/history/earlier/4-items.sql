BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
CREATE TABLE latest (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels)
) WITHOUT ROWID;
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "batches", "gil_bound"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "batches", "slow"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "batches", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "lint", "gil_bound"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "lint", "slow"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "lint", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "scan", "gil_bound"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "scan", "slow"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "scan", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "types", "gil_bound"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "types", "slow"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "types", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "gil_bound"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "slow"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "saturated"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "under_used"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "uneven"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585691307352232929e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',1.50952469994081184267e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',9.6207203998346813023e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',9.65152530043269507586e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.02436926900554681196e+00);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "cancellation"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "error"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "failure"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "skip"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "success"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "batches", "timeout"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "cancellation"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "error"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "failure"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "skip"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "success"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "lint", "timeout"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "cancellation"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "error"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "failure"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "skip"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "success"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "scan", "timeout"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "cancellation"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "error"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "failure"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "skip"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "success"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "types", "timeout"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "cancellation"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "error"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "failure"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "skip"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "success"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_result','["standard", "unit", "timeout"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',11890688.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',11890688.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11890688.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',11890688.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090829-87e6f8','shop','standard','process',1.79585690902023124696e+09,1.79585691012637829779e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585691012612247464e+09,'failure','types, unit, batches failed',1.10589122700184816494e+00,7.098170500001615979e-02,1.14276082489898497818e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 12.4x as long as lint"], ["under_used", null, "workers were busy 11% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
INSERT INTO "runs" VALUES('20261128T090831-684744','shop','standard','process',1.79585691193450236319e+09,1.7958569130737688541e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585691307352232929e+09,'failure','types, unit, batches failed',1.13901989499572664499e+00,3.74983300027805638299e-02,1.10784848300738744675e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 10.6x as long as lint"], ["under_used", null, "workers were busy 11% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
CREATE TABLE sla (
  run_id TEXT NOT NULL, stage TEXT, broken INTEGER NOT NULL, max REAL NOT NULL, warn REAL NOT NULL,
  critical INTEGER NOT NULL, elapsed REAL NOT NULL, at_ts REAL NOT NULL
);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, shown_cpu_total REAL, PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
INSERT INTO "stages" VALUES('20261128T090829-87e6f8','batches',6,'commands',2,1.79585690911771512024e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,3.5286310994706582278e-02,1.40999999999999979516e-03,12914688,2,3.31831799994688481092e-02,3.396519400121178478e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090829-87e6f8','lint',2,'commands',1,1.79585690902540540698e+09,NULL,NULL,NULL,'success','',0,8.20970130007481202483e-02,6.65999999999999925393e-04,12914688,1,3.04411100660217925906e-03,3.04411100660217925906e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090829-87e6f8','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090829-87e6f8','types',4,'commands',1,1.79585690902471113205e+09,NULL,NULL,NULL,'failure','exit 3',1,8.17642880065250210464e-02,9.19999999999999919404e-04,1638400,1,3.55142600164981558918e-03,3.55142600164981558918e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090829-87e6f8','unit',3,'commands',3,1.79585690910956406588e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01528321599471382796e+00,0.00359,12914688,4,1.95521002751775085926e-04,3.92336999357212334871e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090831-684744','batches',6,'commands',2,1.79585691206953644754e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,1.50952469994081184267e-02,0.001736,11890688,2,1.75224800477735698223e-03,3.85588900098809972405e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090831-684744','lint',2,'commands',1,1.79585691194593620304e+09,NULL,NULL,NULL,'success','',0,9.6207203998346813023e-02,0.000837,11890688,1,8.15322993730660527944e-04,8.15322993730660527944e-04,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090831-684744','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090831-684744','types',4,'commands',1,1.7958569119456512928e+09,NULL,NULL,NULL,'failure','exit 3',1,9.65152530043269507586e-02,0.001022,11890688,1,5.80166600411757826805e-03,5.80166600411757826805e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090831-684744','unit',3,'commands',3,1.79585691204794836045e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.02436926900554681196e+00,0.004288,11890688,4,1.29378500423626974225e-03,1.39928170028724707663e-02,0,0,0,NULL);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585690911879038806e+09,3.396519400121178478e-02,9.855910500482423231e-02,0.000695,0.000265534,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.7958569091197311878e+09,3.31831799994688481092e-02,9.95000559996697120368e-02,7.1499999999999992381e-04,0.003228033,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585690910436940196e+09,3.04411100660217925906e-03,0.0841387719992781,6.65999999999999925393e-04,0.000134106,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585690910278344151e+09,3.55142600164981558918e-03,8.25516500044614076614e-02,9.19999999999999919404e-04,0.002427739,1638400,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1795856909.11237,1.95521002751775085926e-04,9.21390799994696862995e-02,0.000899,0.000230594,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585690911366629603e+09,0.00244261599436868,9.3435439004679210484e-02,0.000857,0.000729865,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585691012080192561e+09,3.92336999357212334871e-03,0.00348018800286809,0.001059,0.002801949,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090829-87e6f8','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585690911587214473e+09,2.63513000390958040952e-04,0.0956413120002253,0.000775,9.8917e-05,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585691207691216467e+09,1.75224800477735698223e-03,1.42410082997230347245e-01,9.69999999999999942129e-04,0.003337467,11890688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585691208065938951e+09,3.85588900098809972405e-03,1.46156798997253645211e-01,0.000766,0.002582277,11890688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585691204125905032e+09,8.15322993730660527944e-04,1.06756296001549344509e-01,0.000837,0.002979774,11890688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585691203623580925e+09,5.80166600411757826805e-03,1.01733949995832517743e-01,0.001022,0.004392493,11890688,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090831-684744','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585691205003285405e+09,1.09744750006939284503e-02,1.1553065499902004376e-01,0.001034,0.000601919,11890688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1795856912.05578,1.27598420003778301179e-02,1.21277589001692831516e-01,0.00113,0.005048329,1265664,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585691307088470458e+09,1.29378500423626974225e-03,1.5072419992065988481e-03,0.001094,0.000216161,11890688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090831-684744','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585691206341981889e+09,1.39928170028724707663e-02,1.28917149995686486363e-01,1.02999999999999988266e-03,0.000140664,471040,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.24491112199757480993e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',3.14599999999999949129e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001503);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',1.94199999999999971603e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.007878);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.05',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',0.0503815579941147);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',1.78304216999094933271e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',1.78279541010851971805e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.03965248500026063993e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "batches", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "batches", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.05',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',7.27565110064460895955e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',0.00385943400033284);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',9.35309200576739385724e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',5.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',4.58459389992640353739e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.1',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',4.86626042998977936804e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',1.90895068000827450305e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',1.84285600000293925404e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.1',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',6.51928655002848245203e-01);
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 4;
