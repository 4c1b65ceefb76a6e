BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
INSERT INTO "failed_items" VALUES('20261128T090836-330d10','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090836-330d10','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090836-330d10','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090840-7b85fc','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090840-7b85fc','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090840-7b85fc','batches','c');
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1795856921.1855);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',2.03169399901526048779e-03);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',0.0935226790024899);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',9.24129269988043233752e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.02023788999940734356e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',11911168.0);
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
INSERT INTO "runs" VALUES('20261128T090836-330d10','shop','standard','process',1.79585691677380537983e+09,1.79585691791717314718e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585691791508412357e+09,'failure','types, unit, batches failed',1.14127884700428694486e+00,4.01410110046073534406e-02,1.2057010070372693733e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 9.5x as long as lint"], ["under_used", null, "workers were busy 12% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
INSERT INTO "runs" VALUES('20261128T090840-7b85fc','shop','standard','process',1.79585692005350422862e+09,1.79585692118581080438e+09,'["types", "lint", "unit", "scan", "batches"]',1795856921.1855,'failure','types, unit, batches failed',1.13199570600409060716e+00,2.95963270102643401238e-02,1.02134085761568044192e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 10.9x as long as lint"], ["under_used", null, "workers were busy 10% of their time: fewer workers, or more tasks that run in parallel"]]','[]');
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
INSERT INTO "stages" VALUES('20261128T090836-330d10','batches',6,'commands',2,1.79585691690668463704e+09,NULL,NULL,NULL,'failure','a +1: exit 1 (and 1 more)',2,1.55333400034578517079e-02,1.68099999999999976871e-03,1073152,2,8.14803002867847681045e-04,2.40270599897485226392e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090836-330d10','lint',2,'commands',1,1.79585691677594447139e+09,NULL,NULL,NULL,'success','',0,1.0804422300134319812e-01,0.00071,12898304,1,3.06771600298816338181e-03,3.06771600298816338181e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090836-330d10','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090836-330d10','types',4,'commands',1,1.79585691677517962456e+09,NULL,NULL,NULL,'failure','exit 3',1,1.06638229997770395129e-01,0.000944,12898304,1,1.25507300035678781569e-02,1.25507300035678781569e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090836-330d10','unit',3,'commands',3,1.79585691688401150704e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.0300245369944605045e+00,0.004351,12898304,4,2.82249995507299900054e-04,1.79616739987977780401e-02,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090840-7b85fc','batches',6,'commands',1,1.79585692018667292596e+09,NULL,NULL,NULL,'failure','a +2: exit 1',1,2.03169399901526048779e-03,0.000757,11911168,1,1.80339004145935177803e-04,1.80339004145935177803e-04,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090840-7b85fc','lint',2,'commands',1,1.79585692007103514674e+09,NULL,NULL,NULL,'success','',0,0.0935226790024899,0.000623,11780096,1,3.30503000441240146756e-03,3.30503000441240146756e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090840-7b85fc','scan',5,'commands',1,NULL,NULL,NULL,NULL,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090840-7b85fc','types',4,'commands',1,1.79585692006976151459e+09,NULL,NULL,NULL,'failure','exit 3',1,9.24129269988043233752e-02,9.02999999999999939867e-04,11780096,1,6.29423800273798406124e-03,6.29423800273798406124e-03,0,0,0,NULL);
INSERT INTO "stages" VALUES('20261128T090840-7b85fc','unit',3,'commands',3,1.79585692016376328463e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.02023788999940734356e+00,3.67499999999999944766e-03,11911168,4,0.000255279999691993,1.94919319983455352485e-02,0,0,0,NULL);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090836-330d10','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585691691029548638e+09,2.40270599897485226392e-03,1.36490342003526166081e-01,8.21999999999999922568e-04,0.002103638,1073152,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585691692130470275e+09,8.14803002867847681045e-04,1.47500159000628627836e-01,0.000859,0.000261493,163840,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585691688082790375e+09,3.06771600298816338181e-03,1.07023213000502437353e-01,0.00071,0.010553659,12898304,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585691686913681034e+09,1.25507300035678781569e-02,9.53313110003364272415e-02,0.000944,0.002586829,12898304,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585691688648653027e+09,1.79616739987977780401e-02,1.1268201600614702329e-01,0.001121,0.002951377,12898304,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585691689047098162e+09,1.42795939973439089953e-02,1.16665675006515812128e-01,1.13099999999999984399e-03,0.003315958,1441792,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585691791346168518e+09,2.82249995507299900054e-04,7.50931500078877434134e-03,0.001041,0.003138095,12898304,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090836-330d10','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.7958569169093461037e+09,2.37640700652264058589e-03,1.35540868999669328331e-01,0.001058,0.000802283,12898304,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','batches',0,1,'a +2',1,'failure','exit 1','commands','paropt-commands-0_1',1.7958569201884047985e+09,1.80339004145935177803e-04,1.34900725999614223837e-01,0.000757,0.000232135,11911168,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585692016112565992e+09,3.30503000441240146756e-03,1.07621693998225964605e-01,0.000623,0.004685663,11780096,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585692015552759169e+09,6.29423800273798406124e-03,1.02023161998658906668e-01,9.02999999999999939867e-04,0.004158018,11780096,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585692016609787939e+09,1.94919319983455352485e-02,1.12594015001377556473e-01,0.000975,0.005444892,1572864,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585692016787719727e+09,1.27281850000144913792e-02,1.14372672003810293972e-01,0.000789,0.000714915,11911168,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585692118361639978e+09,0.000255279999691993,2.21126899850787594914e-03,0.001004,1.9368e-05,11911168,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090840-7b85fc','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.7958569201852815151e+09,3.41178005328401923179e-04,1.31776886999432463198e-01,9.06999999999999928675e-04,0.002126599,11911168,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.27327455300837755203e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',2.43799999999999962921e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',0.001333);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',0.001847);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',0.008026);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',1.75650340024731121957e-02);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.01566902003833092749e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',1.99051156996574718505e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.05026242699386784806e+00);
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
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',3.39784800598863512277e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',6.37274600740056484937e-03);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',1.88449680063058622181e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',6.77165000015520490705e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',0.418891227003769);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.14644906998728401958e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',1.97354472998995333909e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',7.33352718016249127686e-01);
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 4;
