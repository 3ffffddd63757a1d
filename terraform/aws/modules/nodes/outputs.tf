output "ids" {
  description = "Node -> instance."
  value       = { for name, instance in aws_instance.node : name => instance.id }
}

output "private_ips" {
  description = "Node -> private address."
  value       = { for name, instance in aws_instance.node : name => instance.private_ip }
}

output "public_ips" {
  description = "Node -> public address, or null."
  value       = { for name, instance in aws_instance.node : name => instance.public_ip == "" ? null : instance.public_ip }
}

output "zones" {
  description = "Node -> the availability zone that it stands in."
  value       = { for name, instance in aws_instance.node : name => instance.availability_zone }
}
