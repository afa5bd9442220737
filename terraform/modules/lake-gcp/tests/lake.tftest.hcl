mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email = "millrace@acme.iam.gserviceaccount.com"
      name  = "projects/acme/serviceAccounts/millrace@acme.iam.gserviceaccount.com"
    }
  }
}

variables {
  project  = "acme"
  bucket   = "acme-millrace-lake"
  location = "europe-west3"
}

run "there_is_a_table_for_each_category" {
  command = apply
  assert {
    condition     = output.bigquery.tables == tolist(["events_cart", "events_custom", "events_exposure", "events_identity", "events_inventory", "events_page", "events_purchase"])
    error_message = "tables: ${join(", ", output.bigquery.tables)}"
  }
  assert {
    condition     = alltrue([for t in google_bigquery_table.events : t.time_partitioning[0].field == "ingested_at" && t.time_partitioning[0].type == "DAY" && t.clustering == tolist(["name", "occurred_at", "visitor_id"]) && t.deletion_protection])
    error_message = "partitions and clusters"
  }
  assert {
    condition     = alltrue([for t in google_bigquery_table.events : alltrue([for c in concat(["ingested_at"], t.clustering) : contains([for f in jsondecode(t.schema) : f.name], c)])])
    error_message = "a table is partitioned or clustered by a column that it does not have"
  }
  assert {
    condition     = [for f in jsondecode(google_bigquery_table.events["events_purchase"].schema) : f.type if f.name == "value"] == ["NUMERIC"]
    error_message = "money is exact"
  }
}

run "loads_have_a_dataset_of_their_own_that_no_analyst_reads" {
  command = apply
  variables {
    readers = ["group:analysts@example.com"]
  }
  assert {
    condition     = output.bigquery.work_dataset == "millrace_load" && length(google_bigquery_dataset.load.access) == 2 && google_bigquery_dataset.load.location == google_bigquery_dataset.millrace.location
    error_message = "the dataset of loads"
  }
}

run "data_files_move_to_colder_classes_and_nothing_is_deleted_by_age" {
  command = apply
  assert {
    condition     = [for r in google_storage_bucket.warehouse.lifecycle_rule : [for a in r.action : a.type][0]] == ["SetStorageClass", "SetStorageClass", "SetStorageClass", "AbortIncompleteMultipartUpload"]
    error_message = "rules"
  }
  assert {
    condition     = alltrue([for r in google_storage_bucket.warehouse.lifecycle_rule : [for c in r.condition : c.matches_suffix][0] == tolist([".parquet"]) if[for a in r.action : a.type][0] == "SetStorageClass"])
    error_message = "metadata must stay warm"
  }
}

run "nobody_outside_reads_it" {
  command = apply
  assert {
    condition     = google_storage_bucket.warehouse.public_access_prevention == "enforced" && google_storage_bucket.warehouse.uniform_bucket_level_access && !google_storage_bucket.warehouse.force_destroy
    error_message = "the bucket is not closed"
  }
  assert {
    condition     = length(google_storage_bucket_iam_member.reader) == 0 && alltrue([for m in google_storage_bucket_iam_member.role : m.role == "roles/storage.objectUser"])
    error_message = "who may do what in the bucket"
  }
}

run "readers_read_both" {
  command = apply
  variables {
    readers = ["group:analysts@example.com", "user:ada@example.com"]
  }
  assert {
    condition     = keys(google_storage_bucket_iam_member.reader) == ["group:analysts@example.com", "user:ada@example.com"]
    error_message = "readers of the bucket"
  }
  assert {
    condition     = contains([for a in google_bigquery_dataset.millrace.access : a.group_by_email], "analysts@example.com") && contains([for a in google_bigquery_dataset.millrace.access : a.user_by_email], "ada@example.com")
    error_message = "readers of the dataset"
  }
}

run "pods_act_as_a_role" {
  command = apply
  variables {
    workload_identities = { sink = ["millrace/sink-iceberg"], batch = ["millrace/batch", "millrace/batch-heavy"] }
  }
  assert {
    condition     = length(google_service_account_iam_member.workload) == 3 && google_service_account_iam_member.workload["sink millrace/sink-iceberg"].member == "serviceAccount:acme.svc.id.goog[millrace/sink-iceberg]"
    error_message = "workload identities"
  }
}

run "a_key_of_ones_own" {
  command = apply
  variables {
    kms_key = "projects/acme/locations/europe-west3/keyRings/r/cryptoKeys/k"
  }
  assert {
    condition     = google_storage_bucket.warehouse.encryption[0].default_kms_key_name == var.kms_key && google_bigquery_dataset.millrace.default_encryption_configuration[0].kms_key_name == var.kms_key
    error_message = "keys"
  }
}

run "all_of_the_internet_is_no_reader" {
  command = plan
  variables {
    readers = ["allUsers"]
  }
  expect_failures = [var.readers]
}

run "tiers_out_of_order_are_refused" {
  command = plan
  variables {
    tiers = [{ age = 90, storage_class = "COLDLINE" }, { age = 30, storage_class = "NEARLINE" }]
  }
  expect_failures = [var.tiers]
}

run "a_class_that_is_none_is_refused" {
  command = plan
  variables {
    tiers = [{ age = 30, storage_class = "GLACIER" }]
  }
  expect_failures = [var.tiers]
}

run "three_days_of_undelete_are_refused" {
  command = plan
  variables {
    undelete_days = 3
  }
  expect_failures = [var.undelete_days]
}
