BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL
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
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "slow"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "saturated"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "under_used"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "uneven"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585687876192975041e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',6.47735189995728433132e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',6.54128499954822473227e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.02450163599860388785e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',11780096.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11780096.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',11911168.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090754-2021c9','shop','standard','process',1.79585687441100072861e+09,1.79585687561841511727e+09,'["types", "lint", "unit", "scan"]',1.79585687561819863319e+09,'failure','types, unit failed',1.20719789699796820059e+00,5.25400680014073834245e-02,1.45765589553952190637e-01,60.0,0,0,0,0,'[["slow", "unit", "unit is slow: 2.4x the average stage; split its slowest task"], ["uneven", null, "stages are uneven: unit took 7.5x as long as lint"], ["under_used", null, "workers were busy 15% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
INSERT INTO "runs" VALUES('20261128T090757-026e1d','shop','standard','process',1.79585687766682100289e+09,1.7958568787621803284e+09,'["types", "lint", "unit", "scan"]',1.79585687876192975041e+09,'failure','types, unit failed',1.09510885799682,2.18582629989504187428e-02,7.19187762707606259571e-02,60.0,0,0,0,0,'[["slow", "unit", "unit is slow: 2.7x the average stage; split its slowest task"], ["uneven", null, "stages are uneven: unit took 15.8x as long as lint"], ["under_used", null, "workers were busy 7% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
CREATE TABLE sla (
  run_id TEXT NOT NULL, stage TEXT, broken INTEGER NOT NULL, max REAL NOT NULL, warn REAL NOT NULL,
  critical INTEGER NOT NULL, elapsed REAL NOT NULL, at_ts REAL NOT NULL
);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
INSERT INTO "stages" VALUES('20261128T090754-2021c9','lint',2,'commands',1,1.79585687441347718234e+09,NULL,NULL,NULL,'success','',0,1.40614110001479275524e-01,0.000735,12959744,1,6.27032997726928442716e-04,6.27032997726928442716e-04,0,0,0);
INSERT INTO "stages" VALUES('20261128T090754-2021c9','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0);
INSERT INTO "stages" VALUES('20261128T090754-2021c9','types',4,'commands',1,1795856874.41324,NULL,NULL,NULL,'failure','exit 3',1,1.40880115999607369303e-01,0.000996,12959744,1,6.08425599784823134541e-03,6.08425599784823134541e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090754-2021c9','unit',3,'commands',3,1.79585687456071305275e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.05661554999824147671e+00,0.004185,12959744,4,1.33319400629261508584e-03,0.0167185239988612,0,0,0);
INSERT INTO "stages" VALUES('20261128T090757-026e1d','lint',2,'commands',1,1.79585687767124891275e+09,NULL,NULL,NULL,'success','',0,6.47735189995728433132e-02,0.000609,11780096,1,3.23946199932834133505e-03,3.23946199932834133505e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090757-026e1d','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0);
INSERT INTO "stages" VALUES('20261128T090757-026e1d','types',4,'commands',1,1.79585687766998267174e+09,NULL,NULL,NULL,'failure','exit 3',1,6.54128499954822473227e-02,8.3099999999999992449e-04,11780096,1,3.93505700048990547657e-03,3.93505700048990547657e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090757-026e1d','unit',3,'commands',3,1.7958568777357096672e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.02450163599860388785e+00,0.003693,11911168,4,2.38423999689985066652e-04,6.2926960017648525536e-03,0,0,0);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585687455339694019e+09,6.27032997726928442716e-04,1.42396964001818560063e-01,0.000735,0.0,12959744,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585687454788184161e+09,6.08425599784823134541e-03,1.36882145001436583697e-01,0.000996,0.0,12959744,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585687456715250012e+09,0.0167185239988612,1.56152586998359765857e-01,0.001077,0.0,155648,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585687457064938545e+09,2.21704579962533898651e-02,1.59649232002266217023e-01,0.001073,0.002420825,1589248,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585687560881090158e+09,8.0274280044250190258e-03,1.51945389952743425965e-02,0.001041,0.0,1695744,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090754-2021c9','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585687459245538707e+09,1.33319400629261508584e-03,1.81455938996805343776e-01,9.93999999999999874975e-04,0.0,12959744,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585687773262405396e+09,3.23946199932834133505e-03,6.58031109996954910457e-02,0.000609,0.0,11780096,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585687772997951508e+09,3.93505700048990547657e-03,6.31582239948329515755e-02,8.3099999999999992449e-04,0.0,11780096,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585687774026584624e+09,2.38423999689985066652e-04,7.34452959950431250035e-02,0.000864,0.0,11780096,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585687774487924575e+09,5.5577919993083924055e-03,7.80578609992517158389e-02,0.000895,0.0,11780096,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585687875746965406e+09,2.64296399836894124746e-03,4.47322599939070641994e-03,0.001072,0.0,11911168,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090757-026e1d','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585687774513649934e+09,6.2926960017648525536e-03,7.8315704995475243777e-02,8.61999999999999919064e-04,4.8132e-05,11780096,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.30230675499478820711e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001344);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',1.82699999999999984807e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.007878);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.05387629001052118837e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.06292965995089616626e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.08111718599684536457e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',3.86649499705526977777e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',1.00193129983381368219e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.01',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',0.0629814800049644);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.08200075001514051109e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.00040368996269535273e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.1',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',7.46744384981866460293e-01);
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 1;
