output "url" {
  description = "What producers configure."
  value       = "https://${var.name}"
}

output "health_check_ids" {
  description = "Health checks by endpoint."
  value       = { for k, c in aws_route53_health_check.endpoint : k => c.id }
}
