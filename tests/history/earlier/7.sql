BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
INSERT INTO "failed_items" VALUES('20261128T090901-12aa4e','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090901-12aa4e','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090901-12aa4e','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090901-12aa4e','unit','b');
INSERT INTO "failed_items" VALUES('20261128T090903-f1fa9d','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090903-f1fa9d','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090903-f1fa9d','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090903-f1fa9d','unit','b');
CREATE TABLE items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
INSERT INTO "items" VALUES('shop','unit','a',8.7754470005165785551e-03,1.795856943470454216e+09);
INSERT INTO "items" VALUES('shop','unit','c',6.14993350245640613138e-03,1.79585694347557425494e+09);
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585694448954343799e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',5.66492199868662282824e-03);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',3.06035500398138538002e-03);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',7.63469750017975457012e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.10650447999796597287e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',10018816.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',10018816.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',1499136.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',10018816.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0,
  shard TEXT NOT NULL DEFAULT '', split TEXT NOT NULL DEFAULT '', merged INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090901-12aa4e','shop','standard','process',1.79585694139644980434e+09,1795856942.5522,'["types", "lint", "unit", "scan", "batches"]',1795856942.53435,'failure','types, unit, batches failed',1.13790018799772951751e+00,0.048419449020034,1.14989687778992433209e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 10.2x as long as lint", ""], ["under_used", null, "workers were busy 11% of their time", ""]]','[]',1,0,'','',1);
INSERT INTO "runs" VALUES('20261128T090903-f1fa9d','shop','standard','process',1.79585694336937451366e+09,1.79585694449646854397e+09,'["types", "unit", "scan", "batches", "lint"]',1.79585694448954343799e+09,'failure','types, unit, batches failed',1.12016880800365470349e+00,2.61491330130117667629e-02,7.82224642272616177418e-02,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 361.6x as long as lint", ""], ["under_used", null, "workers were busy 8% of their time", ""]]','[]',2,0,'','',1);
CREATE TABLE shard_items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
CREATE TABLE sla (
  run_id TEXT NOT NULL, stage TEXT, broken INTEGER NOT NULL, max REAL NOT NULL, warn REAL NOT NULL,
  critical INTEGER NOT NULL, elapsed REAL NOT NULL, at_ts REAL NOT NULL
);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, shown_cpu_total REAL,
  scope TEXT NOT NULL DEFAULT 'all', PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
INSERT INTO "stages" VALUES('20261128T090901-12aa4e','batches',6,'commands',2,1.79585694153062605865e+09,30.0,24.0,0,'failure','a +1: exit 1 (and 1 more)',2,3.49869040001067332923e-02,0.001578,11350016,2,3.07097005133982747793e-04,1.18922300025587901473e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090901-12aa4e','lint',2,'commands',1,1.79585694140684127804e+09,30.0,24.0,0,'success','',0,9.96553069999208673834e-02,0.000794,11350016,1,1.6515171002538409084e-02,1.6515171002538409084e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090901-12aa4e','scan',5,'commands',1,NULL,30.0,24.0,0,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090901-12aa4e','types',4,'commands',1,1.79585694140552020077e+09,30.0,24.0,0,'failure','exit 3',1,0.099412495001161,8.92999999999999913638e-04,11350016,1,1.73243450044537894427e-02,1.73243450044537894427e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090901-12aa4e','unit',3,'commands',3,1.79585694151898336411e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01365978000103496015e+00,3.81599999999999951391e-03,11350016,4,1.27222399896709248423e-03,1.19856490055099129676e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090903-f1fa9d','batches',6,'commands',2,1.79585694347592234607e+09,30.0,24.0,0,'failure','a +1: exit 1 (and 1 more)',2,5.66492199868662282824e-03,1.52799999999999984445e-03,10018816,2,9.79347998509183526039e-04,1.42563199915457516908e-03,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090903-f1fa9d','lint',2,'commands',1,1.79585694350058627127e+09,30.0,24.0,0,'success','',0,3.06035500398138538002e-03,0.000753,10018816,1,2.79677005892153829336e-04,2.79677005892153829336e-04,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090903-f1fa9d','scan',5,'commands',1,NULL,30.0,24.0,0,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090903-f1fa9d','types',4,'commands',1,1.79585694338115930556e+09,30.0,24.0,0,'failure','exit 3',1,7.63469750017975457012e-02,9.599999999999999159e-04,1499136,1,1.90006300035747699439e-02,1.90006300035747699439e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090903-f1fa9d','unit',3,'commands',3,1.79585694338153767585e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.10650447999796597287e+00,4.11999999999999953065e-03,10018816,4,2.70403004833497107028e-04,1.59373720016446895897e-02,0,0,0,NULL,'all');
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585694153303575522e+09,1.18922300025587901473e-02,1.36586494998482521623e-01,0.000725,0.004021744,11350016,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.795856941565217495e+09,3.07097005133982747793e-04,1.68767762996139936149e-01,8.52999999999999917142e-04,0.00368311,11350016,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585694148982977867e+09,1.6515171002538409084e-02,9.33808779955143108963e-02,0.000794,0.00206979,11350016,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585694148738765716e+09,1.73243450044537894427e-02,9.09373909962596371769e-02,8.92999999999999913638e-04,0.006001413,11350016,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585694152672672267e+09,1.61352199938846752047e-03,1.30278124997857958078e-01,1.0479999999999998865e-03,4.7611e-05,11350016,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585694152801012991e+09,3.80156001483555883169e-04,1.31560633999470155686e-01,0.000856,6.5267e-05,11350016,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585694253109264375e+09,1.27222399896709248423e-03,1.39525499980663880705e-03,9.8899999999999986186e-04,0.000227248,11350016,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090901-12aa4e','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585694153269863132e+09,1.19856490055099129676e-02,1.36248721995798405259e-01,0.000923,0.000503139,11350016,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585694348044514661e+09,9.79347998509183526039e-04,1.11071778999757952988e-01,0.000745,0.000216613,10018816,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585694348002362246e+09,1.42563199915457516908e-03,1.10649009999178815633e-01,0.000783,3.7776e-05,10018816,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585694350319313998e+09,2.79677005892153829336e-04,1.33819736998702865093e-01,0.000753,3.0756e-05,10018816,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585694343828034405e+09,1.90006300035747699439e-02,6.89057700001285411417e-02,9.599999999999999159e-04,0.007113104,1499136,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585694344466280936e+09,1.59373720016446895897e-02,7.52896609992603771388e-02,0.001169,0.005762654,1413120,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1795856943.47154,2.41061799897579476237e-03,1.02166855001996736973e-01,0.001072,0.003219551,10018816,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585694448766565326e+09,2.70403004833497107028e-04,1.24245709957904182374e-02,1.02999999999999988266e-03,0.005838599,10018816,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090903-f1fa9d','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585694347366285322e+09,3.14217999402899295091e-04,1.04289765004068613052e-01,8.48999999999999928335e-04,0.000935022,10018816,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.25806899600138422101e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "batches"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "lint"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "types"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',0.003106);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001547);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',1.85299999999999982953e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.007936);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.05',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',4.06518259987933561205e-02);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',1.02715662003902252763e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',1.75759470002958551049e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.12016425999900093302e+00);
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
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.005',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',1.46043070053565315902e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',1.67948480084305629134e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',3.63249750080285593867e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',3.41841620102059096097e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',5.27075046993559226393e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.2720061499421717599e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',1.59843160996388178318e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',5.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',6.93653587994049303233e-01);
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 7;
