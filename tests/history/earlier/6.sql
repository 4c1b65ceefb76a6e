BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
INSERT INTO "failed_items" VALUES('20261128T090854-291aac','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090854-291aac','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090854-291aac','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090854-291aac','unit','b');
INSERT INTO "failed_items" VALUES('20261128T090856-f5fb8b','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090856-f5fb8b','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090856-f5fb8b','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090856-f5fb8b','unit','b');
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585693810368394853e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',1.4290289997006766498e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',1.03119562998472247272e-01);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',1.03472929004055913537e-01);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.01694780300022102892e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',12058624.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',1069056.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',11927552.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',12058624.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090854-291aac','shop','standard','process',1.79585693442109894752e+09,1.79585693558047175405e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585693557311582568e+09,'failure','types, unit, batches failed',1.15201680999598465859e+00,2.67914980021732793136e-02,1.225369903118669751e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 8.2x as long as lint", ""], ["under_used", null, "workers were busy 12% of their time", ""]]','[]',1,0);
INSERT INTO "runs" VALUES('20261128T090856-f5fb8b','shop','standard','process',1.79585693697390103343e+09,1.7958569381047775745e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585693810368394853e+09,'failure','types, unit, batches failed',1.12978301700059091672e+00,1.65661599913890199287e-02,1.10436210473578932944e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 9.9x as long as lint", ""], ["under_used", null, "workers were busy 11% of their time", ""]]','[]',2,0);
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
INSERT INTO "stages" VALUES('20261128T090854-291aac','batches',6,'commands',2,1.79585693457142686838e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,1.12605199974495917558e-02,0.001794,13234176,2,2.42590998823288828134e-04,1.60252499335911124944e-03,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090854-291aac','lint',2,'commands',1,1.79585693443246316915e+09,NULL,NULL,NULL,'success','',0,1.23863558001175988465e-01,0.000823,13234176,1,1.18821249998291023075e-02,1.18821249998291023075e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090854-291aac','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090854-291aac','types',4,'commands',1,1.79585693442379164697e+09,NULL,NULL,NULL,'failure','exit 3',1,1.27496966000762768089e-01,8.79999999999999922908e-04,13234176,1,2.09398060032981447875e-02,2.09398060032981447875e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090854-291aac','unit',3,'commands',3,1.79585693455575418474e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01606459799950243905e+00,0.003898,13234176,4,2.82380002317950129508e-04,3.07189200248103588819e-03,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090856-f5fb8b','batches',6,'commands',1,1.79585693709476470949e+09,NULL,NULL,NULL,'failure','a +2: exit 1',1,1.4290289997006766498e-02,9.0199999999999991556e-04,12058624,1,4.45172998297493904829e-04,4.45172998297493904829e-04,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090856-f5fb8b','lint',2,'commands',1,1.79585693697860026359e+09,NULL,NULL,NULL,'success','',0,1.03119562998472247272e-01,0.000829,1069056,1,9.08689499920001253485e-03,9.08689499920001253485e-03,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090856-f5fb8b','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090856-f5fb8b','types',4,'commands',1,1.79585693697813129424e+09,NULL,NULL,NULL,'failure','exit 3',1,1.03472929004055913537e-01,0.000881,11927552,1,1.27637969999341294169e-02,1.27637969999341294169e-02,0,0,0,NULL,'all');
INSERT INTO "stages" VALUES('20261128T090856-f5fb8b','unit',3,'commands',3,1.79585693708512449257e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.01694780300022102892e+00,0.004137,12058624,4,3.22018997394479811191e-04,7.43744999635964632034e-03,0,0,0,NULL,'all');
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090854-291aac','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585693457349777216e+09,1.60252499335911124944e-03,1.52399621001677587628e-01,9.54999999999999902786e-04,0.000972168,13234176,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585693458211421969e+09,2.42590998823288828134e-04,1.61015534999023657292e-01,0.000839,0.000612651,13234176,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585693454075241088e+09,1.18821249998291023075e-02,1.19654342997819185256e-01,0.000823,0.014984678,13234176,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585693452972722057e+09,2.09398060032981447875e-02,1.08628732996294274926e-01,8.79999999999999922908e-04,0.000391794,13234176,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585693456441760065e+09,3.07189200248103588819e-03,1.43319415998121257871e-01,8.93999999999999937945e-04,0.002459641,946176,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1795856934.5624,2.63863799773389473557e-03,1.41301823001413140445e-01,0.000988,0.000573123,13234176,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585693557139801975e+09,2.82380002317950129508e-04,4.40542500291485339403e-03,0.001035,3.0265e-05,13234176,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090854-291aac','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1795856934.57235,2.71876700571738183498e-03,1.51252122996083926409e-01,9.80999999999999884245e-04,0.001800138,995328,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','batches',0,1,'a +2',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585693710848236085e+09,4.45172998297493904829e-04,1.34581711005012039095e-01,9.0199999999999991556e-04,0.002504208,12058624,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585693707250833514e+09,9.08689499920001253485e-03,9.86085190015728585422e-02,0.000829,0.003101927,1069056,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585693706863141062e+09,1.27637969999341294169e-02,9.47284640060388483107e-02,0.000881,0.009273129,11927552,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585693708827590945e+09,2.57810699986293911933e-03,1.14373874006560072302e-01,0.001057,0.000255821,12058624,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585693709051609032e+09,3.71062000340316444635e-04,1.16615791004733182489e-01,0.000928,0.000582688,12058624,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585693810160541535e+09,3.22018997394479811191e-04,7.00764900102512910962e-03,1.06599999999999989035e-03,0.004564573,12058624,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090856-f5fb8b','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585693710145258899e+09,7.43744999635964632034e-03,1.27551337005570530891e-01,0.001086,0.003807466,12058624,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.28179982699657557532e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',0.002696);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',1.65199999999999982275e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.001761);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.008035);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',2.55508099944563582539e-02);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.26983120999648235738e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.30969895004818681627e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.03301240099972346797e+00);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "batches", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "scan", "skip"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_runs_total','["standard", "unit", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "batches", "failure"]','',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "lint", "success"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "types", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "failure"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_attempts_total','["standard", "unit", "success"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.005',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',2.29028899047989398241e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',2.09690199990291148424e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',3.37036030032322742044e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',7.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',1.94203150022076442837e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',4.47996867005713284015e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.18262861999392043799e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.03357197002333123236e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',8.05827438016422092914e-01);
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 6;
