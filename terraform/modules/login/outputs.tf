output "user" {
  description = "The user of the login."
  value       = var.user
}

output "user_data" {
  description = "A #cloud-config with the login and nothing else."
  value       = local.user_data
}
