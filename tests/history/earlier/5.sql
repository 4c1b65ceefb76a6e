BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
INSERT INTO "failed_items" VALUES('20261128T090845-9ee90e','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090845-9ee90e','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090845-9ee90e','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090848-4d098f','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090848-4d098f','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090848-4d098f','batches','c');
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.7958569300878937245e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',3.71504340000683441758e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',8.31921329954639077186e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',8.48922639997908845543e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.01739444800477940589e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',11927552.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',11927552.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11927552.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',11927552.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090845-9ee90e','shop','standard','process',1.79585692558665466307e+09,1.79585692675821828839e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585692675778079039e+09,'failure','types, unit, batches failed',1.17112621200067223981e+00,1.69409069975653796269e-02,1.4083549978035372896e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 7.1x as long as lint"], ["under_used", null, "workers were busy 14% of their time: fewer workers, or more tasks that run in parallel"]]','[]',1);
INSERT INTO "runs" VALUES('20261128T090848-4d098f','shop','standard','process',1.79585692896882581715e+09,1.795856930088260889e+09,'["types", "lint", "unit", "scan", "batches"]',1.7958569300878937245e+09,'failure','types, unit, batches failed',1.11906786799954716116e+00,3.94417109999965279087e-02,1.15983150654428115999e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 12.2x as long as lint"], ["under_used", null, "workers were busy 12% of their time: fewer workers, or more tasks that run in parallel"]]','[]',2);
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
INSERT INTO "stages" VALUES('20261128T090845-9ee90e','batches',6,'commands',2,1.79585692575133180621e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,2.15948519980884157121e-02,0.001629,13205504,2,1.62747199647128582e-03,0.00916930799576221,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090845-9ee90e','lint',2,'commands',1,1.795856925599738121e+09,NULL,NULL,NULL,'success','',0,1.42823829002736601978e-01,0.00075,13205504,1,3.86794700170867145061e-03,3.86794700170867145061e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090845-9ee90e','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090845-9ee90e','types',4,'commands',1,1.7958569255993814468e+09,NULL,NULL,NULL,'failure','exit 3',1,1.39756554002815391868e-01,0.000979,13205504,1,1.53056799899786710739e-03,1.53056799899786710739e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090845-9ee90e','unit',3,'commands',3,1.79585692574167466164e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01487542900576954707e+00,3.76099999999999958649e-03,13205504,4,9.79458003712352365255e-04,4.46224099869141355156e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090848-4d098f','batches',6,'commands',2,1.79585692908234786989e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,3.71504340000683441758e-02,0.001677,11927552,2,2.09360994631424546241e-04,2.08103740005753934383e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090848-4d098f','lint',2,'commands',1,1.79585692897470331191e+09,NULL,NULL,NULL,'success','',0,8.31921329954639077186e-02,0.00087,11927552,1,4.89598998683504760265e-04,4.89598998683504760265e-04,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090848-4d098f','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090848-4d098f','types',4,'commands',1,1795856928.97313,NULL,NULL,NULL,'failure','exit 3',1,8.48922639997908845543e-02,0.0009,11927552,1,9.51410100242355838418e-03,9.51410100242355838418e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090848-4d098f','unit',3,'commands',3,1.7958569290724189281e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01739444800477940589e+00,4.02699999999999933009e-03,11927552,4,1.59308100410271435976e-03,2.11375709986896254122e-02,0,0,0,NULL);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585692576115679743e+09,1.62747199647128582e-03,1.74502920002851169556e-01,0.000799,0.00286948,13205504,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585692576366424567e+09,0.00916930799576221,1.77009961000294424593e-01,0.00083,0.003968695,13205504,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585692573861026768e+09,3.86794700170867145061e-03,1.51956711997627280652e-01,0.00075,3.5523e-05,13205504,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585692573742485046e+09,1.53056799899786710739e-03,1.50770596999791450798e-01,0.000979,0.009066541,13205504,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585692574566626548e+09,3.989318000094499439e-03,1.59012714000709820538e-01,0.000957,0.000663448,13205504,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585692574923133854e+09,1.40149600338190793991e-03,1.62578030998702161014e-01,8.70999999999999920986e-04,0.002373692,13205504,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585692675542616843e+09,9.79458003712352365255e-04,4.21816599555313587188e-03,0.000917,0.001718228,13205504,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090845-9ee90e','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585692575714087485e+09,4.46224099869141355156e-03,1.70486502000130712985e-01,0.001016,0.003989036,13205504,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585692909317016594e+09,2.08103740005753934383e-02,1.2434465399564942345e-01,0.000946,0.002376256,1024000,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585692911921906466e+09,2.09360994631424546241e-04,1.50393896001332905143e-01,0.000731,0.000820781,11927552,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585692905729484556e+09,4.89598998683504760265e-04,8.84692769977846182882e-02,0.00087,0.007612827,11927552,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585692904823374747e+09,9.51410100242355838418e-03,7.94089619957958348095e-02,0.0009,0.005173908,11927552,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585692907755184173e+09,1.59308100410271435976e-03,1.08726888996898196637e-01,0.001034,0.002557905,11927552,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.7958569290788114071e+09,3.66666004993021488189e-04,1.09986532996117603033e-01,8.57999999999999930257e-04,3.7566e-05,11927552,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585693008315682413e+09,3.43444199825171381235e-03,3.04754399985540658235e-03,0.001036,0.003161904,11927552,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090848-4d098f','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585692909263038635e+09,2.11375709986896254122e-02,1.2380530100199393928e-01,0.001099,0.007605797,159744,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.29019408000021940097e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',0.003306);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.00162);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.001879);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.007788);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.05',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',5.87452859981567598879e-02);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.26015961998200509697e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.24648818002606276422e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.03226987701054895296e+00);
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
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',3.18165149874403141438e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',4.35754600039217621088e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',1.10446690014214254915e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',7.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',3.73642730119172483682e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',6.26251431000127922743e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.4042598899541189894e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.30179558995587285608e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',0.841861679989961);
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 5;
