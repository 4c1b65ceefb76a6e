BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE latest (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels)
) WITHOUT ROWID;
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1795856905.67847);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',9.36603139998624101281e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',9.73444170012953691184e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.03033362700080033391e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',11776000.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11776000.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',11907072.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090821-57d946','shop','standard','process',1.79585690124998235703e+09,1.7958569024417254925e+09,'["types", "lint", "unit", "scan"]',1.79585690244147181508e+09,'failure','types, unit failed',1.19148936000419780611e+00,2.58013960011739124089e-02,1.44893093389539484583e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 6.5x as long as lint"], ["under_used", null, "workers were busy 14% of their time: fewer workers, or more tasks that run in parallel"]]','[]',1);
INSERT INTO "runs" VALUES('20261128T090824-c09aae','shop','standard','process',1.79585690453373289111e+09,1.7958569056787202358e+09,'["types", "lint", "unit", "scan"]',1795856905.67847,'failure','types, unit failed',1.14473702500254148617e+00,2.19228450011510131445e-02,1.08431432146977230202e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 11.0x as long as lint"], ["under_used", null, "workers were busy 11% of their time: fewer workers, or more tasks that run in parallel"]]','[]',2);
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
INSERT INTO "stages" VALUES('20261128T090821-57d946','lint',2,'commands',1,1.79585690126079678538e+09,NULL,NULL,NULL,'success','',0,0.156979888000933,0.000807,12914688,1,1.68913410016102716326e-02,1.68913410016102716326e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090821-57d946','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090821-57d946','types',4,'commands',1,1.79585690125814652438e+09,NULL,NULL,NULL,'failure','exit 3',1,1.60300010000355541706e-01,0.000914,12914688,1,1.99462180025875568389e-02,1.99462180025875568389e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090821-57d946','unit',3,'commands',3,1.79585690142756867408e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01276344499638071283e+00,0.003962,12914688,4,2.47578995185904204845e-04,1.59752799663692712783e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090824-c09aae','lint',2,'commands',1,1.79585690454164910315e+09,NULL,NULL,NULL,'success','',0,9.36603139998624101281e-02,0.000719,11776000,1,2.07564000447746366262e-03,2.07564000447746366262e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090824-c09aae','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090824-c09aae','types',4,'commands',1,1.79585690453771710398e+09,NULL,NULL,NULL,'failure','exit 3',1,9.73444170012953691184e-02,0.001046,11776000,1,3.84713600215036422014e-03,3.84713600215036422014e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090824-c09aae','unit',3,'commands',3,1.79585690465010571481e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.03033362700080033391e+00,4.12599999999999945965e-03,11907072,4,2.95158999506384134292e-04,1.81967140015331096947e-02,0,0,0,NULL);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090821-57d946','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585690140078043939e+09,1.68913410016102716326e-02,1.50797847003559581935e-01,0.000807,0.002697847,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090821-57d946','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585690139759302135e+09,1.99462180025875568389e-02,1.47610122003243304789e-01,0.000914,0.011151845,12914688,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090821-57d946','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585690143241357807e+09,1.39654899976449087262e-03,1.82431360000919084995e-01,0.001095,0.002490096,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090821-57d946','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585690143354892727e+09,2.91314005153253674507e-04,1.83566769999742973595e-01,0.000824,2.9454e-05,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090821-57d946','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.7958569024385983944e+09,1.59752799663692712783e-03,1.69432000257074832916e-03,0.001072,0.000417892,12914688,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090821-57d946','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585690144535541534e+09,2.47578995185904204845e-04,1.95373263006331399083e-01,0.000971,0.005388748,12914688,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585690463290286065e+09,2.07564000447746366262e-03,9.91701439997996203601e-02,0.000719,0.000735329,11776000,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585690463106632235e+09,3.84713600215036422014e-03,9.7333060002711135894e-02,0.001046,0.006638513,11776000,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.7958569046545548439e+09,1.81967140015331096947e-02,1.20822081000369507819e-01,0.001,0.000438922,11907072,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585690467237782475e+09,4.5858299563406035304e-04,1.38644588005263358354e-01,0.000968,0.009396327,11907072,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585690567676949502e+09,2.95158999506384134292e-04,2.67597199854208156466e-03,0.001133,5.5523e-05,11907072,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090824-c09aae','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585690468461060525e+09,1.31218299793545156717e-03,1.50835924003331456333e-01,1.02499999999999986954e-03,0.00834935,135168,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.33622638500673929229e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001526);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.00196);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.008088);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.50640202000795397907e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.57644427001650910824e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.04309707199718104675e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',1.89669810060877352952e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',2.37933540047379210591e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',7.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',2.3795608991349581629e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.49967991003359202295e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.44943182005954440683e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',9.76044278017070610076e-01);
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 4;
