output "warehouse" {
  description = "Root of the Iceberg tables."
  value       = "gs://${google_storage_bucket.warehouse.name}"
}

output "bigquery" {
  description = "Where the tables are."
  value       = { project = var.project, dataset = google_bigquery_dataset.millrace.dataset_id, work_dataset = google_bigquery_dataset.load.dataset_id, tables = sort(keys(google_bigquery_table.events)) }
}

output "service_accounts" {
  description = "Addresses of the accounts by role."
  value       = { for role, a in google_service_account.role : role => a.email }
}
