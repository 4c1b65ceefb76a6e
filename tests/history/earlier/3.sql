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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585689632285642625e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',1.36785710994445253163e-01);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',1.37298453999392222613e-01);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.03322380800091195851e+00);
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
INSERT INTO "runs" VALUES('20261128T090811-be875e','shop','standard','process',1.79585689138134980196e+09,1.79585689256530523297e+09,'["types", "lint", "unit", "scan"]',1.79585689256505322457e+09,'failure','types, unit failed',1.18370345199946314096e+00,3.95762659864877242021e-02,1.38254675986202058002e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 6.7x as long as lint"], ["under_used", null, "workers were busy 14% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
INSERT INTO "runs" VALUES('20261128T090815-232622','shop','standard','process',1.79585689512618207927e+09,1.79585689632309460639e+09,'["types", "lint", "unit", "scan"]',1.79585689632285642625e+09,'failure','types, unit failed',1.19667440799821633845e+00,2.32507029976244394831e-02,1.43202615539197664062e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 7.6x as long as lint"], ["under_used", null, "workers were busy 14% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
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
INSERT INTO "stages" VALUES('20261128T090811-be875e','lint',2,'commands',1,1.79585689138847970965e+09,NULL,NULL,NULL,'success','',0,1.53618284995900467038e-01,0.000713,12959744,1,2.29159179943962953984e-02,2.29159179943962953984e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090811-be875e','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090811-be875e','types',4,'commands',1,1.79585689138757658009e+09,NULL,NULL,NULL,'failure','exit 3',1,1.4753298700088635087e-01,9.37999999999999923248e-04,12959744,1,0.0115217290003784,0.0115217290003784,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090811-be875e','unit',3,'commands',3,1.79585689153281474108e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.03154316700238268822e+00,0.004083,12959744,4,2.34127997828181833028e-04,2.18570299330167472362e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090815-232622','lint',2,'commands',1,1.79585689514146351814e+09,NULL,NULL,NULL,'success','',0,1.36785710994445253163e-01,0.000803,11780096,1,2.1109508998051751405e-02,2.1109508998051751405e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090815-232622','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090815-232622','types',4,'commands',1,1.79585689514110088352e+09,NULL,NULL,NULL,'failure','exit 3',1,1.37298453999392222613e-01,0.000977,11780096,1,6.55055002425797283649e-04,6.55055002425797283649e-04,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090815-232622','unit',3,'commands',3,1.79585689528856682784e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.03322380800091195851e+00,4.14999999999999917565e-03,11911168,4,1.9837500440189614892e-04,5.60379099624697118997e-03,0,0,0,NULL);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090811-be875e','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585689151909136777e+09,2.29159179943962953984e-02,1.3774247500259662047e-01,0.000713,4.6088e-05,12959744,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090811-be875e','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585689151817536352e+09,0.0115217290003784,1.36826091002149041742e-01,9.37999999999999923248e-04,0.0,12959744,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090811-be875e','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.7958568915417728424e+09,2.18570299330167472362e-03,1.60424125002464279532e-01,0.001063,0.0,12959744,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090811-be875e','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585689155660080907e+09,2.40044300153385847806e-03,1.75252344997716136276e-01,0.001028,0.0,12959744,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090811-be875e','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585689256350708011e+09,2.34127997828181833028e-04,0.00298331899830373,0.001065,0.0,12959744,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090811-be875e','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585689155869841575e+09,3.64432999049313366413e-04,1.77349555997352581471e-01,0.000927,0.0,12959744,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090815-232622','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585689525705814359e+09,2.1109508998051751405e-02,1.30875625000044237822e-01,0.000803,0.024294774,11780096,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090815-232622','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585689527756047247e+09,6.55055002425797283649e-04,1.51378431000921409577e-01,0.000977,0.0,11780096,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090815-232622','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585689529844069484e+09,5.60379099624697118997e-03,1.72258279002562630921e-01,1.0479999999999998865e-03,0.0,11780096,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090815-232622','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585689530138635635e+09,1.68732940001063980162e-02,1.7520387299737194553e-01,0.001035,0.002709611,11780096,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090815-232622','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585689632145810131e+09,1.9837500440189614892e-04,2.28248499479377642273e-03,0.00099,0.0,11911168,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090815-232622','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1795856895.31791,1.82679899444337934255e-03,1.9172794800397241488e-01,0.001077,0.0,11911168,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.38037785999767947942e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001516);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.001915);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',8.23299999999999899957e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.90403995990345720201e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.84831441000278573483e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.06476697500329464673e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',4.40254269924480468034e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',1.2176784002804197371e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',2.96869659869116730988e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.68618100002640858292e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.88204522003070451319e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',1.05748192999453749507e+00);
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 3;
