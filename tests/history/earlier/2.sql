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
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "slow"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_bottleneck','["standard", "unit", "uneven"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "saturated"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "under_used"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_bottleneck','["standard", "uneven"]',1.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_lane_sla_breached','["standard", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585688649002361296e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',8.23073159990599378943e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',8.58011270029237493872e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.02116992700030095875e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',11767808.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11767808.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',11767808.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090802-37ce8a','shop','standard','process',1.79585688244949936865e+09,1.79585688361908245086e+09,'["types", "lint", "unit", "scan"]',1.79585688361886453628e+09,'failure','types, unit failed',1.16936521099705714732e+00,2.5872611010002134757e-02,1.42738983263529517486e-01,60.0,0,0,0,0,'[["slow", "unit", "unit is slow: 2.3x the average stage; split its slowest task"], ["uneven", null, "stages are uneven: unit took 7.2x as long as lint"], ["under_used", null, "workers were busy 14% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
INSERT INTO "runs" VALUES('20261128T090805-154b37','shop','standard','process',1.79585688535156512259e+09,1.79585688649161958696e+09,'["types", "lint", "unit", "scan"]',1.79585688649002361296e+09,'failure','types, unit failed',1.13845849999779602512e+00,5.14043099974514916539e-03,8.37790324135739838951e-02,60.0,0,0,0,0,'[["slow", "unit", "unit is slow: 2.6x the average stage; split its slowest task"], ["uneven", null, "stages are uneven: unit took 12.4x as long as lint"], ["under_used", null, "workers were busy 8% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
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
INSERT INTO "stages" VALUES('20261128T090802-37ce8a','lint',2,'commands',1,1.79585688245901513096e+09,NULL,NULL,NULL,'success','',0,1.41988645998935680836e-01,0.000572,12824576,1,4.67795300210127606987e-03,4.67795300210127606987e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090802-37ce8a','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0);
INSERT INTO "stages" VALUES('20261128T090802-37ce8a','types',4,'commands',1,1.79585688245793557169e+09,NULL,NULL,NULL,'failure','exit 3',1,1.46540620997257065027e-01,8.70999999999999920986e-04,12824576,1,4.21072699828073382377e-03,4.21072699828073382377e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090802-37ce8a','unit',3,'commands',3,1.79585688259859848018e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01931968300050357356e+00,3.98899999999999949062e-03,12824576,4,1.66761199943721294403e-03,1.69839990048785693943e-02,0,0,0);
INSERT INTO "stages" VALUES('20261128T090805-154b37','lint',2,'commands',1,1.79585688537389564513e+09,NULL,NULL,NULL,'success','',0,8.23073159990599378943e-02,0.000545,11767808,1,2.02443300076993182301e-03,2.02443300076993182301e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090805-154b37','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0);
INSERT INTO "stages" VALUES('20261128T090805-154b37','types',4,'commands',1,1.79585688536922812464e+09,NULL,NULL,NULL,'failure','exit 3',1,8.58011270029237493872e-02,0.000847,11767808,1,1.29093199939234182238e-03,1.29093199939234182238e-03,0,0,0);
INSERT INTO "stages" VALUES('20261128T090805-154b37','unit',3,'commands',3,1.79585688545921611783e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.02116992700030095875e+00,3.51800000000000029354e-03,11767808,4,0.000215280000702478,2.49081000220030546188e-04,0,0,0);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585688259609842299e+09,4.67795300210127606987e-03,1.46598986997560132294e-01,0.000572,0.0,12824576,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.7958568825926458836e+09,4.21072699828073382377e-03,1.43145948000892531126e-01,8.70999999999999920986e-04,0.0,12824576,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585688260811591155e+09,1.69839990048785693943e-02,0.158616003995121,0.001001,0.005566251,12824576,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585688261103749267e+09,2.27821100270375609397e-03,1.61537321997457183897e-01,8.92999999999999913638e-04,0.0,12824576,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585688361559247974e+09,2.19197200203780084848e-03,1.38402800075709819793e-03,9.98999999999999888089e-04,0.0,12824576,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090802-37ce8a','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585688262445378302e+09,1.66761199943721294403e-03,0.174954230998992,0.001096,0.009284436,405504,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585688545404267317e+09,2.02443300076993182301e-03,1.0247761799837462604e-01,0.000545,0.0,11767808,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585688545325541497e+09,1.29093199939234182238e-03,1.01689955001347698271e-01,0.000847,0.0,11767808,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585688546539831156e+09,2.49081000220030546188e-04,1.13832647999515756964e-01,9.24999999999999932519e-04,0.0,11767808,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585688547106099135e+09,1.12875999911921098828e-03,1.19495537001057527959e-01,0.00083,0.0,11767808,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585688648003602031e+09,0.000231944999541156,6.75496199983172118663e-03,0.001015,0.0,11767808,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090805-154b37','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585688547202181812e+09,0.000215280000702478,1.20456607997766695916e-01,0.000748,0.0,11767808,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.30782371099485317245e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001117);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.001718);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.007507);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.2429596199799561873e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.32341748000180814415e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.04048961000080453231e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',6.70238600287120789289e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',5.50165899767307564616e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',7.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',2.49468600086402148008e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.49076604995934758335e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.44835903002240229398e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',0.857031339990499);
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 2;
