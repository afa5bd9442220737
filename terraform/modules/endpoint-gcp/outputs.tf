output "url" {
  description = "What producers configure."
  value       = "https://${var.name}"
}

output "health_check_id" {
  description = "The health check of all endpoints."
  value       = google_compute_health_check.endpoint.id
}
