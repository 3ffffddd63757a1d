output "ids" {
  description = "Node -> the number of the instance, which another instance of the same name does not have."
  value       = { for name, instance in google_compute_instance.node : name => instance.instance_id }
}

output "names" {
  description = "Node -> name of its instance."
  value       = { for name, instance in google_compute_instance.node : name => instance.name }
}

output "private_ips" {
  description = "Node -> private address."
  value       = { for name, instance in google_compute_instance.node : name => instance.network_interface[0].network_ip }
}

output "public_ips" {
  description = "Node -> public address, or null."
  value       = { for name, instance in google_compute_instance.node : name => try(instance.network_interface[0].access_config[0].nat_ip, null) }
}

output "zones" {
  description = "Node -> the zone that it stands in."
  value       = { for name, instance in google_compute_instance.node : name => instance.zone }
}
