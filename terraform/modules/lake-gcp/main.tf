# The lake: a bucket that is the Iceberg warehouse, and a BigQuery dataset whose tables have the columns of the lake's (schemas/ is written from the same table of
# fields as everything else: `go generate ./terraform`).

locals {
  tables   = { for f in fileset("${path.module}/schemas", "*.json") : trimsuffix(f, ".json") => file("${path.module}/schemas/${f}") }
  accounts = { sink = "writes the lake's tables", batch = "maintains the lake and loads BigQuery" }
}

resource "google_service_account" "role" {
  for_each = local.accounts

  project      = var.project
  account_id   = "millrace-${each.key}"
  display_name = "millrace ${each.key}"
  description  = "millrace: ${each.value}"
}

resource "google_service_account_iam_member" "workload" {
  for_each = merge([for role, names in var.workload_identities : { for n in names : "${role} ${n}" => { role = role, name = n } }]...)

  service_account_id = google_service_account.role[each.value.role].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${each.value.name}]"
}

resource "google_storage_bucket" "warehouse" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.location
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection
  labels                      = var.labels

  # Iceberg deletes what no snapshot needs. A rule that deletes by age would take files from live tables, so there is none but for what never became an object.
  dynamic "lifecycle_rule" {
    for_each = var.tiers
    content {
      action {
        type          = "SetStorageClass"
        storage_class = lifecycle_rule.value.storage_class
      }
      condition {
        age            = lifecycle_rule.value.age
        matches_suffix = [".parquet"]
      }
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  soft_delete_policy {
    retention_duration_seconds = var.undelete_days * 86400
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
}

resource "google_storage_bucket_iam_member" "role" {
  for_each = local.accounts

  bucket = google_storage_bucket.warehouse.name
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${google_service_account.role[each.key].email}"
}

resource "google_storage_bucket_iam_member" "reader" {
  for_each = toset(var.readers)

  bucket = google_storage_bucket.warehouse.name
  role   = "roles/storage.objectViewer"
  member = each.key
}

resource "google_project_iam_member" "jobs" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = "serviceAccount:${google_service_account.role["batch"].email}"
}

resource "google_bigquery_dataset" "millrace" {
  project                    = var.project
  dataset_id                 = var.dataset
  location                   = var.location
  description                = "millrace: events as cleaned, deduplicated and enriched by the stream, loaded from the lake's published snapshots."
  delete_contents_on_destroy = !var.deletion_protection
  storage_billing_model      = "PHYSICAL"
  labels                     = var.labels

  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }
  access {
    role          = "WRITER"
    user_by_email = google_service_account.role["batch"].email
  }
  dynamic "access" {
    for_each = toset([for r in var.readers : r if !startswith(r, "group:")])
    content {
      role          = "READER"
      user_by_email = split(":", access.value)[1]
    }
  }
  dynamic "access" {
    for_each = toset([for r in var.readers : r if startswith(r, "group:")])
    content {
      role           = "READER"
      group_by_email = split(":", access.value)[1]
    }
  }

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }
}

# Rows of loads that are under way, and how far each table is loaded: nobody but the batch role reads it.
resource "google_bigquery_dataset" "load" {
  project                    = var.project
  dataset_id                 = "${var.dataset}_load"
  location                   = var.location
  description                = "millrace: staged rows and positions of the loads into ${var.dataset}."
  delete_contents_on_destroy = !var.deletion_protection
  labels                     = var.labels

  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }
  access {
    role          = "WRITER"
    user_by_email = google_service_account.role["batch"].email
  }

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }
}

resource "google_bigquery_table" "events" {
  for_each = local.tables

  project             = var.project
  dataset_id          = google_bigquery_dataset.millrace.dataset_id
  table_id            = each.key
  description         = "Category ${trimprefix(each.key, "events_")} of the platform's events; one row an event."
  schema              = each.value
  clustering          = ["name", "occurred_at", "visitor_id"]
  deletion_protection = var.deletion_protection
  labels              = var.labels

  # By the day on which the platform knew of an event: a day closes, however late events are about.
  time_partitioning {
    type  = "DAY"
    field = "ingested_at"
  }
}
