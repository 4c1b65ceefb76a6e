BEGIN TRANSACTION;
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
INSERT INTO "failed_items" VALUES('20261128T090907-082942','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090907-082942','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090907-082942','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090907-082942','unit','b');
INSERT INTO "failed_items" VALUES('20261128T090909-d40aa6','batches','a');
INSERT INTO "failed_items" VALUES('20261128T090909-d40aa6','batches','b');
INSERT INTO "failed_items" VALUES('20261128T090909-d40aa6','batches','c');
INSERT INTO "failed_items" VALUES('20261128T090909-d40aa6','unit','b');
CREATE TABLE flaky_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
CREATE TABLE items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
INSERT INTO "items" VALUES('shop','unit','a',5.65873750019818544387e-03,1.79585694967832541464e+09);
INSERT INTO "items" VALUES('shop','unit','c',1.37679450199357233941e-03,1.7958569497104768753e+09);
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
INSERT INTO "latest" VALUES('shop','paropt_run_last_completion_timestamp_seconds','["standard"]',1.79585695072183585165e+09);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "batches", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "lint", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "types", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "critical"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_sla_breached','["standard", "unit", "normal"]',0.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "batches"]',1.5690904998336918652e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "lint"]',5.62611399800516664981e-03);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "types"]',4.94614289927994832396e-02);
INSERT INTO "latest" VALUES('shop','paropt_stage_last_duration_seconds','["standard", "unit"]',1.09089688899985048919e+00);
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
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "batches"]',9916416.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "lint"]',9916416.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "types"]',9916416.0);
INSERT INTO "latest" VALUES('shop','paropt_stage_memory_peak_bytes','["standard", "unit"]',9916416.0);
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0,
  shard TEXT NOT NULL DEFAULT '', split TEXT NOT NULL DEFAULT '', merged INTEGER NOT NULL DEFAULT 1,
  tree_state TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
INSERT INTO "runs" VALUES('20261128T090907-082942','shop','standard','process',1.79585694744666171077e+09,1.79585694869327259061e+09,'["types", "lint", "unit", "scan", "batches"]',1.79585694866737341883e+09,'failure','types, unit, batches failed',1.22071170500566950067e+00,2.57475640033536790074e-02,1.72313438639330657187e-01,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 5.2x as long as lint", ""], ["under_used", null, "workers were busy 17% of their time", ""]]','[]',1,0,'','',1,'');
INSERT INTO "runs" VALUES('20261128T090909-d40aa6','shop','standard','process',1.79585694961680936813e+09,1.79585695073327279097e+09,'["types", "unit", "scan", "batches", "lint"]',1.79585695072183585165e+09,'failure','types, unit, batches failed',1.10502649900445248931e+00,1.52952849967932322933e-02,9.00707114471345354766e-02,60.0,0,0,0,0,'[["uneven", null, "stages are uneven: unit took 193.9x as long as lint", ""], ["under_used", null, "workers were busy 9% of their time", ""]]','[]',2,0,'','',1,'');
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
  scope TEXT NOT NULL DEFAULT 'all', first_attempts INTEGER NOT NULL DEFAULT 0,
  flaky_attempts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
INSERT INTO "stages" VALUES('20261128T090907-082942','batches',6,'commands',2,1.79585694765115118027e+09,30.0,24.0,0,'failure','a +1: exit 1 (and 1 more)',2,1.07465449982555583119e-02,0.001643,11472896,2,1.8727170026977546513e-03,5.72645299689611420035e-03,0,0,0,NULL,'all',2,0);
INSERT INTO "stages" VALUES('20261128T090907-082942','lint',2,'commands',1,1.7958569474482097626e+09,30.0,24.0,0,'success','',0,1.97608670001500286161e-01,0.000798,733184,1,2.08344499988015741109e-02,2.08344499988015741109e-02,0,0,0,NULL,'all',1,0);
INSERT INTO "stages" VALUES('20261128T090907-082942','scan',5,'commands',1,NULL,30.0,24.0,0,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all',0,0);
INSERT INTO "stages" VALUES('20261128T090907-082942','types',4,'commands',1,1.7958569474481115341e+09,30.0,24.0,0,'failure','exit 3',1,1.77599287999328225851e-01,1.0069999999999998657e-03,1445888,1,1.80187989972182549536e-02,1.80187989972182549536e-02,0,0,0,NULL,'all',1,0);
INSERT INTO "stages" VALUES('20261128T090907-082942','unit',3,'commands',3,1.79585694763597917555e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.02350579400081187486e+00,0.004287,11472896,4,2.3400830032187514007e-03,4.77672900160541757941e-03,0,0,0,NULL,'all',3,0);
INSERT INTO "stages" VALUES('20261128T090909-d40aa6','batches',6,'commands',2,1.79585694970974302296e+09,30.0,24.0,0,'failure','a +1: exit 1 (and 1 more)',2,1.5690904998336918652e-02,1.7139999999999998119e-03,9916416,2,1.49846000567777082324e-03,5.70979899930534884333e-03,0,0,0,NULL,'all',2,0);
INSERT INTO "stages" VALUES('20261128T090909-d40aa6','lint',2,'commands',1,1.79585694972416353223e+09,30.0,24.0,0,'success','',0,5.62611399800516664981e-03,6.83999999999999929237e-04,9916416,1,2.37232998188119381666e-04,2.37232998188119381666e-04,0,0,0,NULL,'all',1,0);
INSERT INTO "stages" VALUES('20261128T090909-d40aa6','scan',5,'commands',1,NULL,30.0,24.0,0,'skip','needs types',0,0.0,0.0,0,0,0.0,0.0,0,0,0,NULL,'all',0,0);
INSERT INTO "stages" VALUES('20261128T090909-d40aa6','types',4,'commands',1,1.79585694962676548957e+09,30.0,24.0,0,'failure','exit 3',1,4.94614289927994832396e-02,8.84999999999999936023e-04,9916416,1,4.22638993768487125635e-04,4.22638993768487125635e-04,0,0,0,NULL,'all',1,0);
INSERT INTO "stages" VALUES('20261128T090909-d40aa6','unit',3,'commands',3,1.79585694962686944009e+09,30.0,24.0,0,'failure','b: exit 1 (after 2 attempts)',1,1.09089688899985048919e+00,0.004593,9916416,4,4.13506000768393278121e-04,7.41212299908511340618e-03,0,0,0,NULL,'all',3,0);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('20261128T090907-082942','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585694765431785587e+09,1.8727170026977546513e-03,2.07656655999016948044e-01,0.000806,0.002318711,1380352,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585694765601825719e+09,5.72645299689611420035e-03,2.09357167004782240837e-01,0.000837,0.005005871,11472896,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585694762492489818e+09,2.08344499988015741109e-02,1.78263307003362569957e-01,0.000798,0.021249867,733184,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1.79585694760755324363e+09,1.80187989972182549536e-02,1.60890129001927562057e-01,1.0069999999999998657e-03,0.000704728,1445888,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090907-082942','unit',0,1,'a',1,'success','','commands','paropt-commands-0_1',1.79585694764559793473e+09,3.90535200131125748157e-03,1.98936277003667782992e-01,0.00107,0.001934059,11472896,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_0',1.79585694764930176728e+09,1.36450099671492353081e-03,2.02640310002607293426e-01,0.000842,0.000958736,11472896,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.79585694865452694893e+09,4.77672900160541757941e-03,3.56460400507785379886e-03,0.001366,0.00334439,11472896,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090907-082942','unit',2,1,'c',1,'success','','commands','paropt-commands-0_1',1.79585694765217208858e+09,2.3400830032187514007e-03,2.05510521998803596943e-01,0.001009,0.000593222,11472896,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','batches',0,1,'a +1',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585694971829557421e+09,1.49846000567777082324e-03,1.01485630999377463012e-01,0.000864,0.000144084,9916416,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','batches',1,1,'b',1,'failure','exit 1','commands','paropt-commands-0_1',1.7958569497195558548e+09,5.70979899930534884333e-03,1.02746387005026917904e-01,0.00085,2.2594e-05,9916416,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','lint',0,1,NULL,1,'success','','commands','paropt-commands-0_0',1.79585694972941017151e+09,2.37232998188119381666e-04,1.12600504005968105047e-01,6.83999999999999929237e-04,0.003160712,9916416,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','types',0,1,NULL,1,'failure','exit 3','commands','paropt-commands-0_1',1795856949.67562,4.22638993768487125635e-04,5.88115550053771585226e-02,8.84999999999999936023e-04,0.005773792,9916416,3,NULL,'wrong
');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','unit',0,1,'a',1,'success','','commands','paropt-commands-0_0',1.79585694966851711269e+09,7.41212299908511340618e-03,5.17078410048270598053e-02,1.03799999999999986027e-03,0.002793797,9916416,0,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','unit',1,1,'b',0,'failure','exit 1','commands','paropt-commands-0_1',1.79585694969826889033e+09,1.04653970047365874052e-02,8.14604150000377558171e-02,0.001089,0.016554775,9916416,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','unit',1,2,'b',1,'failure','exit 1','commands','paropt-commands-0_0',1.79585695071406579014e+09,3.64188000094145536422e-03,3.12781400134554132819e-03,0.001473,0.002855199,9916416,1,NULL,'');
INSERT INTO "tasks" VALUES('20261128T090909-d40aa6','unit',2,1,'c',1,'success','','commands','paropt-commands-0_0',1.79585694970843172076e+09,4.13506000768393278121e-04,9.16217789999791420996e-02,0.000993,0.005747503,9916416,0,NULL,'');
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES('shop','paropt_lane_sla_checks_total','["standard"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_run_duration_seconds','["standard"]','sum',2.32573820401012198999e+00);
INSERT INTO "totals" VALUES('shop','paropt_runs_total','["standard", "failure"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "batches"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "lint"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "types"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_sla_checks_total','["standard", "unit"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "batches"]','',3.35699999999999974115e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "lint"]','',1.48199999999999981054e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "types"]','',1.89199999999999980172e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_cpu_seconds_total','["standard", "unit"]','',8.87999999999999900524e-03);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','0.025',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "batches"]','sum',2.64374499965924769639e-02);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "lint"]','sum',2.03234783999505452811e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.05',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "types"]','sum',2.2706071699212770909e-01);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','2.5',2.0);
INSERT INTO "totals" VALUES('shop','paropt_stage_duration_seconds','["standard", "unit"]','sum',2.11440268300066236406e+00);
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
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','0.01',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "batches"]','sum',1.48074290045769885182e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "lint"]','sum',2.10716829969896934926e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.005',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "types"]','sum',1.84414379909867420792e-02);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.005',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.01',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','0.025',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_duration_seconds','["standard", "unit"]','sum',0.0343195710083819);
INSERT INTO "totals" VALUES('shop','paropt_task_first_attempts_total','["standard", "batches"]','',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_first_attempts_total','["standard", "lint"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_first_attempts_total','["standard", "types"]','',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_first_attempts_total','["standard", "unit"]','',6.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','0.25',4.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "batches"]','sum',6.21245841008203569799e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','0.25',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "lint"]','sum',2.90863811009330675005e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.1',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','0.25',1.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "types"]','sum',2.1970168400730472058e-01);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.005',2.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.1',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','0.25',3.0);
INSERT INTO "totals" VALUES('shop','paropt_task_queue_wait_seconds','["standard", "unit"]','sum',0.838569562016346);
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE INDEX sla_by_run ON sla (run_id);
COMMIT;
PRAGMA user_version = 8;
